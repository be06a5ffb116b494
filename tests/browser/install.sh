#!/bin/sh
# Installs what the browser tests need from Debian: Chromium, and a font to draw with. Needs root.
# Several may run it at once: one installs, the others wait.
set -eu
export DEBIAN_FRONTEND=noninteractive
exec 9< "$0"
flock 9
install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=100 chromium fonts-dejavu-core; }
install || { apt-get update && install; }
