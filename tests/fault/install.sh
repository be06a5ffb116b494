#!/bin/sh
# Installs what the fault tests need from Debian: libfaketime, and tools for virtual networks. Needs root.
# Several may run it at once: one installs, the others wait.
set -eu
export DEBIAN_FRONTEND=noninteractive
exec 9< "$0"
flock 9
install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=100 faketime iproute2 nftables; }
install || { apt-get update && install; }
