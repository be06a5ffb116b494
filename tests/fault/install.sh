#!/bin/sh
# Installs what the fault tests need from Debian: libfaketime, and tools for virtual networks. Needs root.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends faketime || { apt-get update && apt-get install -y --no-install-recommends faketime iproute2 nftables; }
