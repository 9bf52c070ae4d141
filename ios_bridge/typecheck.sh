#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whether the bridge, and for an iPhone the sample, compile against an Apple SDK: typecheck.sh SDK TRIPLE, on a Mac.
# Nothing is linked. Python's headers are those of `python3-config`, close enough to those for iOS.
set -eu
cd "$(dirname "$0")"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
flags="-sdk $(xcrun --sdk "$1" --show-sdk-path) -target $2 -swift-version 5 -I $built -I Sources/CPython"
for flag in $(python3-config --includes); do
    flags="$flags -Xcc $flag"
done
for module in EdgeFl EdgeFlApple; do
    # shellcheck disable=SC2086
    xcrun swiftc $flags -emit-module -module-name "$module" -emit-module-path "$built/$module.swiftmodule" \
        "Sources/$module"/*.swift
done
case "$1" in mac*) exit ;; esac
# shellcheck disable=SC2086
xcrun swiftc $flags -typecheck App/*.swift
