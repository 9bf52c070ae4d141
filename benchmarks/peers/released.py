# SPDX-License-Identifier: Apache-2.0
"""Frameworks as their makers released them, each in an environment of its own that is gone afterwards."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.codec import Measured

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints" / "peers.txt"
_INSIDE = Path(__file__).parent / "inside"


@dataclass(frozen=True)
class Framework:
    """What to install, and the script that measures it from within.

    Attributes:
        packages: by name, versions are in `constraints/peers.txt`; nothing else is installed.
        script: in the folder `inside`.
        borrows: whether it also sees the packages of the environment this runs in, for torch.
    """

    packages: tuple[str, ...]
    script: str
    borrows: bool = False


# Messages need few of the packages that the frameworks ask for; the rest are servers and command lines.
FLOWER = Framework(
    (
        "flwr", "numpy", "protobuf", "grpcio", "cryptography", "cffi", "pycparser", "httpx", "httpcore",
        "anyio", "h11", "idna", "certifi", "typer", "rich", "markdown-it-py", "mdurl", "Pygments",
        "shellingham", "annotated-doc", "typing_extensions", "pycryptodome", "iterators",
    ),
    "flower.py",
)  # fmt: skip
FLARE = Framework(
    ("nvflare", "msgpack", "cryptography", "cffi", "pycparser", "bitsandbytes", "psutil"), "flare.py", True
)
FRAMEWORKS: Mapping[str, Framework] = {"flower": FLOWER, "flare": FLARE}


def measure(
    framework: Framework, files: Mapping[str, Path], sizes: Mapping[str, int], folder: Path
) -> list[Measured]:
    """Install, run, read.

    Args:
        files: an `.npz` of arrays by the name of the update.
        sizes: parameters of each.
        folder: for the environment; must not exist.

    Raises:
        subprocess.CalledProcessError: pip or the script failed; what they said is on standard error.
    """
    python = _environment(framework, folder)
    command = [str(python), "-W", "ignore", str(_INSIDE / framework.script), *map(str, files.values())]
    # Nothing of a user's home is read or written, and nobody is told that it ran.
    quiet = {"HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **quiet})
    names = {str(path): name for name, path in files.items()}
    return list(_rows(json.loads(done.stdout), names, sizes))


def _environment(framework: Framework, folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "-c", str(CONSTRAINTS)]
    subprocess.run([str(python), "-m", "pip", "install", *options, *framework.packages], check=True)
    if framework.borrows:
        found = f"python{sys.version_info.major}.{sys.version_info.minor}"
        target = folder / "lib" / found / "site-packages" / "borrowed.pth"
        target.write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def _rows(
    found: list[dict[str, Any]], names: Mapping[str, str], sizes: Mapping[str, int]
) -> Iterator[Measured]:
    for row in found:
        name = names[row["path"]]
        if row["bytes"] is None:
            print(f"left out: {row['name']} on {name}: {row['note']}", file=sys.stderr)
            continue
        yield Measured(
            data=name,
            name=row["name"],
            source=row["source"],
            bytes=row["bytes"],
            times_smaller=4 * sizes[name] / row["bytes"],
            nmse=row["nmse"],
            encode_ms=row["encode_ms"],
            note=row["note"],
        )
