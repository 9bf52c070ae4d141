# SPDX-License-Identifier: Apache-2.0
"""What importing the device's side costs beyond NumPy.

    python -m benchmarks.imports [--json]

Processor time in a fresh process that has imported NumPy already, the least of several; bytecode is cached,
as it is after the first run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks.tables import markdown

REPEATS = 9
IMPORTS = {
    "edgefl.runtime": "import edgefl.runtime",
    "edgefl.runtime.Trainer": "from edgefl.runtime import Trainer",
    "all that `edgefl device` runs": "import edgefl.runtime.command.device",
}


def seconds(statement: str) -> float:
    """The least of several fresh processes."""
    code = f"import numpy, time; t = time.process_time(); {statement}; print(time.process_time() - t)"
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(REPEATS)]
    return min(float(run.stdout) for run in runs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    found = {what: seconds(statement) for what, statement in IMPORTS.items()}
    if parser.parse_args().json:
        print(json.dumps(found, indent=2))
        return 0
    print(markdown(("import", "ms beyond NumPy"), [(n, f"{1000 * s:.0f}") for n, s in found.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
