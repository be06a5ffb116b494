#!/bin/sh
# Installs what the fault tests need from Debian: libfaketime, and tools for virtual networks. Needs root.
set -eu
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends faketime iproute2 nftables; }
install || { apt-get update && install; }
