#!/usr/bin/env bash
# Builds a real Kubernetes 1.20.2 from Debian's source package with Debian's Go: build.sh FOLDER
#
# FOLDER/bin gets kube-apiserver, -controller-manager, -scheduler, -proxy and kubelet (400 MB). It takes 6 to
# 12 minutes of two cores, once: a folder that is complete is left as it is. The sources of apt are not changed.
set -euo pipefail
folder=$(realpath -m "$1")
work=$folder/work bin=$folder/bin
names="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet"
[ ! -e "$folder/built" ] || exit 0
mkdir -p "$work/lists/partial" "$bin"
cd "$work"

echo "installing Go" >&2
apt-get install -y -qq --no-install-recommends golang-1.19-go jq rsync make > apt.log 2>&1

# The mirror that apt uses already, with its sources beside its packages.
site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site bookworm main" > src.list
apt=(-qq -o Dir::Etc::sourcelist="$work/src.list" -o Dir::Etc::sourceparts=/dev/null
  -o Dir::State::lists="$work/lists" -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update
apt-get "${apt[@]}" source --download-only kubernetes
rm -rf kubernetes-1.20.2
tar xzf kubernetes_*.orig.tar.gz

# reflect2 1.0.1 reads Go's map iterators as they were before Go 1.18, and the API server dies of it at the
# first custom resource: Debian's own package has a later one.
apt-get -qq -o APT::Sandbox::User=root download golang-github-modern-go-reflect2-dev
dpkg -x golang-github-modern-go-reflect2-dev_*.deb reflect2
cd kubernetes-1.20.2
vendored=vendor/github.com/modern-go/reflect2
rm -f "$vendored"/*.go "$vendored"/*.s
cp "$work"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$vendored/"

mkdir -p .go/src/k8s.io
ln -sfn ../../.. .go/src/k8s.io/kubernetes
# Without the clouds' own storage and balancers: their libraries take as long as all the rest.
export GOFLAGS="-mod=vendor -tags=providerless"
export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$work/gopath HOME=$work GOPROXY=off
# kubelet without C as the others are, so that nothing is compiled twice.
export FORCE_HOST_GO=y KUBE_STATIC_OVERRIDES=kubelet KUBE_BUILD_PLATFORMS=linux/amd64
export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=clean KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
echo "building $names" >&2
make WHAT="$(printf 'cmd/%s ' $names)"
for name in $names; do cp "_output/bin/$name" "$bin/"; done
cd "$folder"
chmod -R u+w work  # Go's module cache is read-only
rm -rf work
touch built
