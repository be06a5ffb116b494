#!/usr/bin/env bash
# Writes the images of a test's node into an archive: images.sh PAUSE JOB SCRIPTS ARCHIVE
#
# PAUSE holds a pod's namespaces; JOB is the project's image with the folder SCRIPTS on top, in /job. Needs root,
# and podman.
set -euo pipefail
pause=$1 job=$2 scripts=$3 archive=$4
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$here/../podman/build.sh" localhost/edldist:test examples > /dev/null
cp "$(command -v catatonit)" "$work/pause"
printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause", "-P"]\n' > "$work/Pause"
cp -r "$scripts" "$work/job"
printf 'FROM localhost/edldist:test\nCOPY job /job\n' > "$work/Job"
podman --runtime runc build --quiet --file "$work/Pause" --tag "$pause" "$work"
podman --runtime runc build --quiet --file "$work/Job" --tag "$job" "$work"
podman save --quiet --multi-image-archive --output "$archive" "$pause" "$job"
