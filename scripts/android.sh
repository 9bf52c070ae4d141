#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the Android bridge's tests need beside Python: scripts/android.sh [FOLDER]
# As root on Debian a Java compiler is installed where there is none. Debian's android.jar (API 23, every method
# declared, none that runs) is put in FOLDER, build/android by default; filled already, it needs no network.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "${1:-$root/build/android}" && cd "${1:-$root/build/android}" && pwd)
package=libandroid-23-java_6.0.1+r72-6_all.deb
sha256=8af1b6df556971dda0a6da3536ea526a838e0c363afcdd454213d8bce94793e3

if ! command -v javac >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        { echo 'no javac here (Debian: apt-get install openjdk-17-jdk-headless)' >&2; exit 2; }
    apt-get update -qq && apt-get install -y -qq --no-install-recommends openjdk-17-jdk-headless
fi
[ -e "$folder/android.jar" ] && exit 0
command -v apt-get >/dev/null || { echo 'no apt-get here to fetch android.jar with' >&2; exit 2; }

# A list of package sources of its own: this Debian's releases do not all carry the package.
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb [^h]*\(http[^ ]*\).*/\1/p' | head -n 1)
for suite in bullseye sid; do
    echo "deb [signed-by=$keys] ${mirror:?no source of packages is set up} $suite main" >"$folder/apt/sources.list"
    private="-o Dir::Etc::sourcelist=$folder/apt/sources.list -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=
        -o Dir::State::lists=$folder/apt/lists -o Dir::Cache=$folder/apt/cache"
    # shellcheck disable=SC2086
    if apt-get -qq $private update && (cd "$folder" && apt-get -qq $private download libandroid-23-java); then
        break
    fi
done
[ -e "$folder/$package" ] || { echo "Debian's libandroid-23-java cannot be had here" >&2; exit 2; }
echo "$sha256  $folder/$package" | sha256sum --check --quiet
dpkg-deb -x "$folder/$package" "$folder/unpacked"
mv "$folder/unpacked/usr/share/java/com.android.android-23.jar" "$folder/android.jar"
rm -rf "$folder/unpacked" "$folder/apt" "$folder/$package"
