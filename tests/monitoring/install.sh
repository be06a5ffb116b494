#!/bin/sh
# Puts Debian's prometheus and promtool into a folder, $1. Nothing is installed, and no service is started: the
# package is fetched and unpacked there. Needs apt's lists, or root to get them.
# Several may run it at once: one fetches, the others wait.
set -eu
mkdir -p "$1"
exec 9> "$1/.lock"
flock 9
test -x "$1/usr/bin/promtool" && exit 0
draft=$(mktemp -d "$1/draft.XXXXXX")
trap 'rm -rf "$draft"' EXIT
cd "$draft"
apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }
dpkg-deb -x prometheus_*.deb "$draft/unpacked"
rm -rf "$1/usr"
mv "$draft/unpacked/usr" "$1/usr"
