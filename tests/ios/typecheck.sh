#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ios_bridge/typecheck.sh where Swift is, on the declarations in Stubs: typecheck.sh iphone | mac
set -eu
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
export STUBS="$here/stubs"
mkdir "$STUBS"
cat >"$here/xcrun" <<'XCRUN'
#!/bin/bash
# Xcode's: the path of an SDK, or its compiler, here without what names a platform.
if [ "$1" = --sdk ]; then echo /; exit; fi
arguments=()
for argument in "${@:2}"; do
    case "$before" in -sdk | -target) ;; *)
        case "$argument" in -sdk | -target) ;; *) arguments+=("$argument") ;; esac ;;
    esac
    before=$argument
done
exec swiftc -I "$STUBS" "${arguments[@]}"
XCRUN
chmod +x "$here/xcrun"
declared='CoreML Network'
[ "$1" = mac ] || declared="$declared BackgroundTasks UIKit"
for module in $declared; do
    swiftc -emit-module -module-name "$module" -emit-module-path "$STUBS/$module.swiftmodule" \
        ios_bridge/Stubs/"$module"/*.swift
done
PATH="$here:$PATH" ios_bridge/typecheck.sh "$1" any
