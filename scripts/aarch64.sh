#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a Raspberry Pi runs, on emulated processors: scripts/aarch64.sh [FOLDER] [codec|train|round|all|suite]
#
#   codec  golden frames and weights decode to the same bits, on aarch64 and armv7 with two releases of NumPy each
#   train  every engine's losses equal x86's to 1e-5; the models are made here, so PYTHON needs torch
#   round  edgefl-device.pyz takes part in a round of a real server, which PYTHON runs
#   suite  the device's tests on armv7 with NumPy alone, but for those of other engines and of processes, which
#          an emulated process cannot start; takes ten minutes and is no part of all
#
# Needs apt-get, dpkg-deb and unzip of a Debian or Ubuntu system, and pip. Nothing is installed and nothing
# outside FOLDER is written; with a folder that is filled already no network is needed. Ends with 2 and the
# reason where something cannot be had.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/build/aarch64}
folder=$(mkdir -p "$folder" && cd "$folder" && pwd)
what=${2:-codec}
python=${PYTHON:-python3}
keys=/usr/share/keyrings/debian-archive-keyring.gpg

skip() { echo "skipped: $*" >&2; exit 2; }
for tool in apt-get dpkg-deb unzip; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done

debian() {  # debian ARCHITECTURE SUITE ARGUMENTS: apt-get with lists of its own, as if nothing were installed
    home=$folder/apt-$1-$2
    mkdir -p "$home/lists/partial" "$home/cache/archives/partial"
    [ -e "$home/status" ] || : > "$home/status"
    if [ ! -e "$home/sources.list" ]; then
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' | sed -n 's/ Debian$//p' | head -n 1)
        [ -n "$mirror" ] || skip "this system's apt has no Debian archive"
        echo "deb [signed-by=$keys] $mirror $2 main" > "$home/sources.list"
    fi
    architecture=$1
    shift 2
    apt-get -q -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o APT::Sandbox::User= -o Dir::Etc::sourcelist="$home/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State="$home" -o Dir::State::lists="$home/lists" -o Dir::State::status="$home/status" \
        -o Dir::Cache="$home/cache" "$@" >&2
}

unpacked() {  # unpacked FOLDER ARCHITECTURE SUITE PACKAGE...: packages with all they depend on
    [ -e "$1/.ready" ] && return
    target=$1; architecture=$2; suite=$3
    shift 3
    debian "$architecture" "$suite" update || skip "no $suite packages of $architecture can be had"
    debian "$architecture" "$suite" install --yes --download-only --no-install-recommends "$@" ||
        skip "no $suite packages of $architecture can be had"
    mkdir -p "$target"
    [ "$suite" = bookworm ] || ln -sfn usr/lib "$target/lib"
    for deb in "$folder/apt-$architecture-$suite/cache/archives"/*.deb; do dpkg-deb -x "$deb" "$target"; done
    touch "$target/.ready"
}

wheel() {  # wheel REQUIREMENT [MACHINE]: its folder, with the wheel for Python 3.11 unpacked
    machine=${2:-aarch64}
    target=$folder/wheels-$machine/$1
    if [ ! -e "$target/.ready" ]; then
        mkdir -p "$target"
        "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$target.download" \
            --only-binary=:all: --python-version 3.11 --platform "manylinux2014_$machine" \
            --platform "manylinux_2_27_$machine" --platform "manylinux_2_28_$machine" \
            --platform "manylinux_2_34_$machine" "$1" >&2 || skip "no wheel of $1 for $machine can be had"
        unzip -qo "$target.download"/*.whl -d "$target"
        touch "$target/.ready"
    fi
    echo "$target"
}

emulated() {  # emulated QEMU PROCESSOR ROOT PYTHON PATH ARGUMENTS
    emulator=$folder/qemu/usr/bin/$1; processor=$2; system=$folder/$3; interpreter=$4; path=$5
    shift 5
    libraries=$(find "$system/usr/lib" "$system/lib/" -maxdepth 1 -name '*-linux-gnu*' -type d | tr '\n' ':')
    for part in blas lapack; do
        libraries=$libraries$(find "$system/usr/lib" -maxdepth 2 -name "$part" -type d | tr '\n' ':')
    done
    "$emulator" -cpu "$processor" -L "$system" -E PYTHONPATH="$path" -E PYTHONHOME="$system/usr" \
        -E PYTHONDONTWRITEBYTECODE=1 -E OMP_NUM_THREADS=1 -E OPENBLAS_NUM_THREADS=1 \
        -E LD_LIBRARY_PATH="$libraries" -E EDGEFL_CACHE="$folder/cache" "$system/usr/bin/$interpreter" "$@"
}

pi64() {  # pi64 PATH ARGUMENTS: a Raspberry Pi 4 with 64 bits
    emulated qemu-aarch64 cortex-a72 arm64 python3.11 "$@"
}

pi32() {  # pi32 PATH ARGUMENTS: a Raspberry Pi 2 with 32 bits, with Debian 12's Python 3.11 and NumPy 1.24
    path=$1
    shift
    emulated qemu-arm cortex-a7 armhf-bookworm python3.11 "$debian_numpy12:$path" "$@"
}

pi32new() {  # pi32new ARGUMENTS: the same with Debian 13's Python 3.13 and NumPy 2.2
    emulated qemu-arm cortex-a7 armhf-trixie python3.13 "$folder/armhf-trixie/usr/lib/python3/dist-packages" "$@"
}

unpacked "$folder/qemu" "$(dpkg --print-architecture)" trixie qemu-user
unpacked "$folder/arm64" arm64 bookworm python3.11 libgfortran5 libstdc++6
unpacked "$folder/armhf-bookworm" armhf bookworm python3.11 python3-numpy libstdc++6
unpacked "$folder/armhf-trixie" armhf trixie python3.13 python3-numpy
debian_numpy12=$folder/armhf-bookworm/usr/lib/python3/dist-packages

codec() {
    for numpy in ${NUMPYS:-1.26.4 2.4.6}; do pi64 "$(wheel "numpy==$numpy")" "$root/tests/aarch64/check.py"; done
    pi32 "" "$root/tests/aarch64/check.py"
    pi32new "$root/tests/aarch64/check.py"
}

train() {
    models=$folder/models
    rm -rf "$models"
    "$python" "$root/tests/aarch64/train.py" make "$models" >&2
    old=$(wheel numpy==1.26.4); new=$(wheel numpy==2.4.6)
    check() { path=$1; shift; pi64 "$path" "$root/tests/aarch64/train.py" check "$models" "$@"; }
    check "$old" numpy
    check "$new" numpy
    check "$new:$(wheel onnxruntime==1.31.1)" onnx
    check "$old:$(wheel onnxruntime==1.19.2)" onnx
    check "$old:$(wheel tflite-runtime==2.14.0)" tflite
    check "$new:$(wheel ai-edge-litert==2.3.0)" tflite
    pi32 "" "$root/tests/aarch64/train.py" check "$models" numpy
    pi32 "$(wheel tflite-runtime==2.14.0 armv7l)" "$root/tests/aarch64/train.py" check "$models" tflite
    pi32new "$root/tests/aarch64/train.py" check "$models" numpy
}

round() {
    run=$folder/round
    rm -rf "$run"
    mkdir -p "$run"
    "$python" "$root/scripts/device.py" pyz "$run" >&2
    "$python" "$root/tests/aarch64/examples.py" "$run/mine.npz"
    PYTHONPATH=$root "$python" -m edgefl serve "$root/tests/fixtures/mlp.edgefl" --db "$run/rounds.db" --port 0 \
        --port-file "$run/port" --rounds 1 --goal 2 2>"$run/server.log" &
    server=$!
    trap 'kill $server' EXIT
    while [ ! -e "$run/port" ]; do kill -0 $server || exit 1; sleep 0.2; done
    set -- "$run/edgefl-device.pyz" --server "http://127.0.0.1:$(cat "$run/port")" --data "$run/mine.npz"
    pi64 "$(wheel numpy==1.26.4):$(wheel tflite-runtime==2.14.0)" "$@" --delegate cpu --backend tflite \
        --id pi4 --workdir "$run/pi4" &
    other=$!
    pi32new "$@" --id pi2 --workdir "$run/pi2"
    wait $other
}

suite() {
    tools=$folder/pytest
    if [ ! -e "$tools/.ready" ]; then
        # The last releases of hypothesis are no longer pure Python.
        "$python" -m pip install --quiet --disable-pip-version-check --target "$tools" --only-binary=:all: \
            --no-deps pytest pluggy iniconfig packaging pygments hypothesis==6.125.3 sortedcontainers attrs >&2 ||
            skip "pytest cannot be had"
        touch "$tools/.ready"
    fi
    cd "$root"
    emulated qemu-arm cortex-a7 armhf-trixie python3.13 \
        "$folder/armhf-trixie/usr/lib/python3/dist-packages:$tools" -m pytest -q -m 'device and not slow' \
        -p no:cacheprovider --ignore tests/runtime/test_backends.py --ignore tests/runtime/test_proving.py \
        --ignore tests/delta/test_golden_weights.py \
        --deselect tests/runtime/test_store.py::test_killed_while_adding \
        --deselect tests/runtime/test_store.py::test_two_processes_and_threads_at_once \
        tests/delta tests/bundle tests/graph tests/runtime
}

case $what in
    codec | train | round | suite) "$what" ;;
    all) codec; train; round ;;
    *) echo "what is $what? allowed are codec, train, round, all, suite" >&2; exit 2 ;;
esac
