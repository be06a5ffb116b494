#!/bin/sh
# Installs what the Slurm tests need from Debian: Slurm itself, munge, and tools for virtual networks. Needs root.
# Says nothing and does nothing where all of it is there. Several may run it at once: one installs, the others wait.
set -eu
missing() {
    for tool in slurmctld slurmd munged mungekey ip nft nsenter unshare; do
        command -v $tool > /dev/null || return 0
    done
    return 1
}
install() {
    apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 \
        slurm-wlm munge iproute2 nftables util-linux > /dev/null
}
missing || exit 0
exec 9< "$0"
flock 9
missing || exit 0
export DEBIAN_FRONTEND=noninteractive
install 2> /dev/null || { apt-get update > /dev/null && install; }
