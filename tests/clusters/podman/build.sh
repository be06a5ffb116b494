#!/usr/bin/env bash
# Builds the project's image with podman, with the options of this machine (options.sh): build.sh NAME [EXTRAS]
set -euo pipefail
name=$1 extras=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
options=$("$here/options.sh")
mapfile -t options <<< "$options"
podman --runtime runc build --quiet --tag "$name" --build-arg EXTRAS="$extras" "${options[@]}" "$here/../../.."
