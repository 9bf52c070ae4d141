# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: every figure of the docs, one benchmark after another."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (
    ["benchmarks.operators"],
    ["benchmarks.models"],
    ["benchmarks.proofs"],
    ["benchmarks.imports"],
    ["benchmarks.releases", "--keep"],
    ["benchmarks.step"],
    ["benchmarks.overhead"],
    ["benchmarks.coreml"],
    ["benchmarks.matrix", "--keep"],
    ["benchmarks.qat", "--keep"],
    ["benchmarks.codec", "--real", "--keep"],
    ["benchmarks.features", "--keep"],
    ["benchmarks.peers", "--keep"],
    ["benchmarks.robustness", "--keep"],
    ["benchmarks.personalization", "--keep"],
    ["benchmarks.server", "--keep"],
    ["benchmarks.curves", "--keep"],
)


def main() -> int:
    """Each benchmark in a process of its own, so that none disturbs another; the number that failed."""
    failed = 0
    for command in COMMANDS:
        print(f"\n== python -m {' '.join(command)}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *command]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
