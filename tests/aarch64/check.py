# SPDX-License-Identifier: Apache-2.0
"""Whether this machine and this NumPy decode to the bits that every other one does.

    python tests/aarch64/check.py            compares, prints one line, ends with 0 if all is equal
    python tests/aarch64/check.py --write    makes golden/weights.json anew

It needs nothing but edgefl and NumPy, so that an emulated machine can run it.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from edgefl.delta import Limits, coders, decode, lattice  # noqa: E402
from edgefl.delta.snapshot import FORMS, decode_weights, encode_weights  # noqa: E402
from edgefl.parameters import Parameter, Schema  # noqa: E402

GOLDEN = ROOT / "tests" / "delta" / "golden"
SIZE, VERSIONS = 300, 7
SCHEMA = Schema((Parameter("w", (10, 28), "float32", "shared"), Parameter("b", (20,), "float32", "shared")))


def start() -> np.ndarray:
    """Parameters by integer arithmetic, the same everywhere; some too small for normal float32."""
    whole = np.arange(1, SIZE + 1, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    made = (whole / np.float64(1 << 32) - 0.5).astype(np.float32)
    made[::37] *= np.float32(1e-40)
    return made


def differences() -> Iterator[str]:
    """What is not as it was where the golden files were made."""
    for case in json.loads((GOLDEN / "frames.json").read_text()):
        if "zstd" in case["name"] and coders.zstandard() is None:
            continue
        update = decode(bytes.fromhex(case["frame"]), Limits(bytes.fromhex(case["schema"]), case["size"]))
        if (
            update.values.astype("<f4").tobytes().hex() != case["values"]
            or update.indices.tolist() != case["indices"]
        ):
            yield f"frame {case['name']}"
    golden = json.loads((GOLDEN / "weights.json").read_text())
    for path in golden["paths"]:
        moved = np.zeros(SIZE)
        for body in path["bodies"]:
            for step in lattice.decode_moves(
                bytes.fromhex(body), schema_id=SCHEMA.id, size=SIZE, versions=range(VERSIONS)
            ):
                moved[step.indices] += step.values
        if lattice.fingerprint(lattice.weights(start(), moved)) != golden["fingerprints"][path["version"]]:
            yield f"path {path['name']}"
    for form in FORMS:
        found = decode_weights(bytes.fromhex(golden[form]["frame"]), SCHEMA, VERSIONS)
        if lattice.fingerprint(SCHEMA.flatten(found)) != golden[form]["fingerprint"]:
            yield f"weights as {form}"


def make() -> dict[str, Any]:
    """The golden file: chains, sums and whole states that lead to each version."""
    from edgefl.server_stub.downlink import Link, merged, since_first
    from edgefl.server_stub.publish import Standing, publish

    random, standing, links = np.random.default_rng(1), Standing.first(start()), []
    prints, paths = [lattice.fingerprint(standing.weights())], []
    for version in range(1, VERSIONS):
        step = random.laplace(size=SIZE) * 10.0 ** -random.integers(0, 5) * (random.random(SIZE) < 0.4)
        made, standing = publish(standing, step, 0.03)
        frame = lattice.encode_moves(made.moves, made.unit, schema_id=SCHEMA.id, base_version=version - 1)
        links.append(Link(version, version - 1, frame, made.unit))
        prints.append(lattice.fingerprint(standing.weights()))
        state = since_first(standing, SCHEMA, 0)
        chain = [link.frame for link in links]
        half = [merged(links[: version // 2], SCHEMA)] if version > 1 else []
        for name, bodies in (
            ("chain", chain),
            ("sum", [merged(links, SCHEMA)]),
            ("state", [state]),
            ("sum, then chain", half + chain[version // 2 :]),
        ):
            paths.append(
                {"name": f"{name} to {version}", "version": version, "bodies": [b.hex() for b in bodies]}
            )
    golden: dict[str, Any] = {"fingerprints": prints, "paths": paths}
    for form in FORMS:
        frame = encode_weights(standing.weights(), SCHEMA, form, VERSIONS)
        found = SCHEMA.flatten(decode_weights(frame, SCHEMA, VERSIONS))
        golden[form] = {"frame": frame.hex(), "fingerprint": lattice.fingerprint(found)}
    return golden


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        (GOLDEN / "weights.json").write_text(json.dumps(make(), indent=0) + "\n")
    wrong = list(differences())
    where = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    print(f"{where}: {', '.join(wrong) or 'every bit is the same'}")
    sys.exit(bool(wrong))
