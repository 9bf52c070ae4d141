#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Decode the golden frames on an emulated aarch64 machine: scripts/aarch64.sh [FOLDER]
# Needs qemu-aarch64-static (Debian: qemu-user-static), apt-get, dpkg-deb, pip and unzip; nothing is installed
# and nothing outside FOLDER is written. With a folder that is filled already it needs no network.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "${1:-$root/build/aarch64}" && cd "${1:-$root/build/aarch64}" && pwd)
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) ||
    { echo 'qemu-aarch64-static is not installed (Debian: apt-get install qemu-user-static)' >&2; exit 2; }
numpys=${NUMPYS:-"1.26.4 2.4.6"}
packages='libc6 libgcc-s1 libstdc++6 libgfortran5 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libuuid1
    libcrypt1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib'

arm64() {  # apt-get for another architecture, with lists of its own
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
    touch "$folder/apt/status"
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
        -o Dir::State="$folder/apt" -o Dir::State::lists="$folder/apt/lists" \
        -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt/cache" "$@"
}

if [ ! -e "$folder/root/.ready" ]; then
    arm64 update
    mkdir -p "$folder/debs" "$folder/root"
    # shellcheck disable=SC2086
    (cd "$folder/debs" && arm64 download $packages)
    for deb in "$folder"/debs/*.deb; do dpkg-deb -x "$deb" "$folder/root"; done
    touch "$folder/root/.ready"
fi
for numpy in $numpys; do
    if [ ! -d "$folder/numpy-$numpy" ]; then
        "${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder/wheels" \
            --only-binary=:all: --python-version 3.11 --platform manylinux2014_aarch64 \
            --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 "numpy==$numpy"
        unzip -q "$folder/wheels/numpy-$numpy"-*.whl -d "$folder/numpy-$numpy"
    fi
    "$qemu" -L "$folder/root" -E PYTHONPATH="$folder/numpy-$numpy" -E PYTHONHOME="$folder/root/usr" \
        -E PYTHONDONTWRITEBYTECODE=1 -E OMP_NUM_THREADS=1 -E OPENBLAS_NUM_THREADS=1 \
        -E LD_LIBRARY_PATH="$folder/root/usr/lib/aarch64-linux-gnu:$folder/root/lib/aarch64-linux-gnu" \
        "$folder/root/usr/bin/python3.11" "$root/tests/aarch64/check.py"
done
