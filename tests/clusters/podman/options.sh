#!/usr/bin/env bash
# Prints the options with which podman builds the project's image here, without reaching a registry of images, one word
# a line.
#
# The base is made of Debian's packages, once, and kept by podman as localhost/edldist-base. pip's settings of this
# machine, and the folders that they name, are there during the build and not in the image. Needs root.
set -euo pipefail
base=localhost/edldist-base:12

if ! podman image exists "$base"; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  echo "making the base image" >&2
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" "$site" > "$work/log" 2>&1 \
    || { tail -5 "$work/log" >&2; exit 1; }
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
  tar -C "$work/base" -c . | podman import -q - "$base" > /dev/null
fi

for path in /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" \
  $(pip config list 2> /dev/null | sed -n "s/^.*\(cert\|constraint\|find-links\)='\(.*\)'$/\2/p" | sort -u) \
  $(pip config list 2> /dev/null | grep -o "file://[^ ']*" | sed 's#^file://##; s#/simple/*$##' | sort -u); do
  if [ -e "$path" ]; then printf '%s\n' --volume "$path:$path:ro"; fi
done
printf '%s\n' --http-proxy=true --build-arg "BASE=$base" --build-arg TORCH_INDEX=
