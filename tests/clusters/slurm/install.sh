#!/bin/sh
# Installs what the Slurm tests need from Debian: Slurm itself, munge, and tools for virtual networks. Needs root.
# Says nothing and does nothing where all of it is there.
set -eu
for tool in slurmctld slurmd munged mungekey ip nft nsenter unshare; do
    command -v $tool > /dev/null || missing=1
done
[ -n "${missing:-}" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends slurm-wlm munge iproute2 nftables > /dev/null; }
install 2> /dev/null || { apt-get update > /dev/null && install; }
