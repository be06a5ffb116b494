#!/usr/bin/env bash
# Builds the project's image with podman, without reaching a registry of images: build.sh NAME [EXTRAS]
#
# The base is made of Debian's packages, once, and kept by podman as localhost/edldist-base. pip's settings of this
# machine, and the folders that they name, are there during the build and not in the image. Needs root.
set -euo pipefail
name=$1 extras=${2:-}
root=$(cd "$(dirname "$0")/../../.." && pwd)
base=localhost/edldist-base:12
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! podman image exists "$base"; then
  echo "making the base image" >&2
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" "$site" > "$work/log" 2>&1 \
    || { tail -5 "$work/log" >&2; exit 1; }
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
  tar -C "$work/base" -c . | podman import -q - "$base" > /dev/null
fi

volumes=()
for path in /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" \
  $(pip config list 2> /dev/null | sed -n "s/^.*\(cert\|constraint\|find-links\)='\(.*\)'$/\2/p" | sort -u); do
  if [ -e "$path" ]; then volumes+=(--volume "$path:$path:ro"); fi
done
podman --runtime runc build --quiet --tag "$name" "${volumes[@]}" --http-proxy=true \
  --build-arg BASE="$base" --build-arg TORCH_INDEX= --build-arg EXTRAS="$extras" "$root"
