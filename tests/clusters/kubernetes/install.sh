#!/bin/sh
# Installs what a Kubernetes node and its images need from Debian, beside what build.sh builds. Needs root.
set -eu
export DEBIAN_FRONTEND=noninteractive
command -v kubectl > /dev/null || kubectl=kubernetes-client
install() {
    apt-get install -y --no-install-recommends etcd-server containerd runc containernetworking-plugins conntrack \
        iptables iproute2 openssl podman catatonit buildah debootstrap docker-registry ${kubectl:-} > /dev/null
}
install 2> /dev/null || { apt-get update > /dev/null && install; }
