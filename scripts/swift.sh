#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run a command where Swift 6 is: scripts/swift.sh COMMAND ...
# Swift comes from Debian trixie, in a folder of its own that is made once (3.5 GB, a minute or two):
# $EDGEFL_SWIFT, else edgefl/swift in the user's cache. The command finds the checkout at /edgefl and runs there.
# Needs root and apt-get. Exits with 2, saying why, where it cannot be had.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${EDGEFL_SWIFT:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/edgefl/swift}
missing() { echo "no Swift here: $1" >&2; exit 2; }

[ "$(id -u)" = 0 ] || missing 'its folder can only be entered by root'
command -v unshare >/dev/null || missing 'there is no unshare to keep its mounts apart with'
if [ ! -e "$folder/.ready" ]; then
    command -v apt-get >/dev/null || missing 'there is no apt-get'
    if ! command -v debootstrap >/dev/null; then
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap; } >&2 ||
            missing 'debootstrap cannot be installed'
    fi
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb [^h]*\(http[^ ]*\).*/\1/p' | head -n 1)
    rm -rf "$folder"
    mkdir -p "$folder"
    debootstrap --variant=minbase trixie "$folder" "$mirror" >&2 || missing 'Debian trixie cannot be fetched'
    DEBIAN_FRONTEND=noninteractive unshare --mount sh -c '
        mount -t proc proc "$1/proc" && exec chroot "$1" apt-get install -y -qq --no-install-recommends \
            swiftlang libc6-dev libstdc++-14-dev gcc pkg-config git ca-certificates python3-dev python3-numpy' \
        sh "$folder" >&2 || missing 'swiftlang cannot be installed'
    touch "$folder/.ready"
fi
[ $# -gt 0 ] || exit 0
mkdir -p "$folder/edgefl"
# In a mount namespace of its own: whatever ends the command, no mount of the checkout stays behind.
exec unshare --mount sh -c '
    folder=$1 root=$2; shift 2
    mount --bind "$root" "$folder/edgefl" && mount -t proc proc "$folder/proc" || exit 2
    exec chroot "$folder" sh -c "cd /edgefl && exec \"\$@\"" sh "$@"' sh "$folder" "$root" "$@"
