#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the tests as other processors would: `python scripts/kernels.py [SET ...] [-- PYTEST ARGUMENTS]`.

Float32 sums differ in their last bits by the kernel that makes them, and BLAS libraries choose kernels by
processor. Each set tells OpenBLAS (NumPy), MKL, oneDNN and ATen (PyTorch), and TensorFlow which to take, as
far as this processor can run them. A test that fails under one set has a bound that is one machine's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

SETS: Mapping[str, Mapping[str, str]] = {
    "haswell": {
        "OPENBLAS_CORETYPE": "Haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "skylakex": {
        "OPENBLAS_CORETYPE": "SkylakeX", "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    },
    "zen": {
        "OPENBLAS_CORETYPE": "Zen", "MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "oldest": {
        "OPENBLAS_CORETYPE": "Prescott", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX", "TF_ENABLE_ONEDNN_OPTS": "0",
    },
}  # fmt: skip
"""OpenVINO contains oneDNN too, and refuses packed weights where that is held below AVX."""
NEEDS = {"skylakex": "avx512f"}
"""What /proc/cpuinfo must list for a set to run at all."""


def main(arguments: Sequence[str]) -> int:
    names, options = _split(arguments)
    unknown = sorted(set(names) - set(SETS))
    if unknown:
        print(f"unknown sets {unknown}: there are {', '.join(SETS)}", file=sys.stderr)
        return 2
    results = {name: _run(name, options) for name in names or SETS}
    print()
    for name, result in results.items():
        print(f"{name:10} {result}")
    return int(any(result.startswith("failed") for result in results.values()))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    return given[:end], given[end + 1 :]


def _run(name: str, options: Sequence[str]) -> str:
    if (needed := NEEDS.get(name)) and needed not in _features():
        return f"not run: this processor has no {needed}"
    print(f"-- {name}: {' '.join(f'{k}={v}' for k, v in SETS[name].items())}", flush=True)
    begun = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", *options]
    status = subprocess.run(command, env={**os.environ, **SETS[name]}, check=False).returncode
    return (
        f"{'passed' if status == 0 else f'failed with status {status}'} in {time.monotonic() - begun:.0f} s"
    )


def _features() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(flags.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
