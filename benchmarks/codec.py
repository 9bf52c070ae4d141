# SPDX-License-Identifier: Apache-2.0
"""Speed and size of the payload codec.

    python -m benchmarks.codec [--real] [--keep] [--json]

Speed: medians of processor time on 10 million Laplace values, one thread, as multiples of one `np.abs` pass
over the same array into memory that is already there, in the same run; once with everything NumPy can do,
once with NumPy's baseline instructions only. Size: bits per nonzero against two bounds: `iid`, the entropy of
a random subset of that size plus the order-0 entropy of the levels plus a sign, and `empirical`, which takes
the order-0 entropy of the gaps (quarter-octave classes, uniform inside a class) in place of the subset's.
`--real` adds updates of models trained on the spot. `--keep` writes `benchmarks/results/codec.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.delta import Encoded, Limits, coders, decode, encode, inspect_frame, tokens
from edgefl.delta.bits import Array
from edgefl.errors import MissingDependency
from edgefl.parameters import Vector

RESULTS = Path(__file__).parent / "results" / "codec.json"
ID = b"benchmrk"
LARGE = 10_000_000
REPEATS = 9
CASES = (("topk", 0.001), ("topk", 0.01), ("topk", 0.1), ("unbiased", 0.01))

Row = dict[str, Any]


def laplace(size: int) -> Vector:
    vector: Vector = np.random.default_rng(1).laplace(size=size).astype(np.float32)
    return vector


def code(vector: Vector, **options: Any) -> Encoded:
    return encode(vector, schema_id=ID, base_version=1, rng=0, **options)


def median_ms(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1e3 * float(np.median(times))


def speed() -> list[Row]:
    """Encoding of 10 million values, and decoding with aggregation, against one pass."""
    vector = laplace(LARGE)
    return [_speed(vector, *case) for case in CASES]


def _speed(vector: Vector, mode: str, density: float) -> Row:
    out, total = np.empty_like(vector), np.zeros(len(vector), np.float32)
    frame = code(vector, mode=mode, density=density).frame
    one_pass = median_ms(lambda: np.abs(vector, out=out))
    taken = median_ms(lambda: code(vector, mode=mode, density=density))
    return {
        "mode": mode,
        "density": density,
        "pass_ms": one_pass,
        "encode_ms": taken,
        "encode_passes": taken / one_pass,
        "decode_and_add_ms": median_ms(lambda: decode(frame, Limits(ID, len(vector))).add_to(total, 0.5)),
        "peak_extra_memory": _peak(lambda: code(vector, mode=mode, density=density)) / vector.nbytes,
    }


def speed_without_wide_vectors() -> list[Row]:
    """The same in a process where NumPy may use 128-bit vectors only, about what a small ARM core has."""
    name = "numpy._core._multiarray_umath" if hasattr(np, "_core") else "numpy.core._multiarray_umath"
    features = sys.modules[name].__cpu_dispatch__
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(features)}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.codec", "--speed-only", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout)["speed"]
    return rows


def sizes(name: str, vector: Vector) -> Iterator[Row]:
    """Bytes of one update in several modes, against its bounds."""
    for mode, density in CASES:
        encoded = code(vector, mode=mode, density=density)
        count = len(encoded.indices)
        bits = 8 * len(encoded.frame) / count
        iid, empirical = bounds(encoded)
        yield {
            "data": name,
            "parameters": vector.size,
            "mode": mode,
            "density": density,
            "nonzeros": count,
            "bytes": len(encoded.frame),
            "framing": inspect_frame(encoded.frame).framing,
            "times_smaller": vector.nbytes / len(encoded.frame),
            "bits": bits,
            "iid_bound": iid,
            "over_iid": bits / iid - 1,
            "empirical_bound": empirical,
            "over_empirical": bits / empirical - 1,
            "without_zstd": len(code(vector, mode=mode, density=density, coders=("deflate",)).frame),
        }


def bounds(encoded: Encoded) -> tuple[float, float]:
    """Bits per nonzero: for independent positions, and for the order-0 statistics of these."""
    count = len(encoded.indices)
    share = count / encoded.size
    subset = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) / share if share < 1 else 0.0
    levels = 8 * _entropy(np.unique(np.abs(encoded.values), return_counts=True)[1]) / count
    codes, extra = tokens.split(np.diff(encoded.indices, prepend=-1) - 1)
    gaps = (8 * coders.entropy_bytes(codes.tobytes()) + 8 * len(extra)) / count
    return float(subset + levels + 1), float(gaps + levels + 1)


def _entropy(counts: Array) -> float:
    shares = counts / counts.sum()
    return float(-(shares @ np.log2(shares))) * int(counts.sum()) / 8


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def real_updates() -> Iterator[tuple[str, Vector]]:
    from benchmarks.deltas import UPDATES

    for name, train in UPDATES.items():
        try:
            yield name, train()
        except (ImportError, MissingDependency) as exc:
            print(f"left out: {name} ({exc})", file=sys.stderr)


def machine() -> Row:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zstandard": getattr(coders.zstandard(), "__version__", None),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def show(report: Row) -> None:
    for key in ("speed", "speed_without_wide_vectors"):
        for row in report.get(key, ()):
            print(
                f"{key}: {row['mode']} {row['density']:.1%}: encode {row['encode_ms']:.1f} ms = "
                f"{row['encode_passes']:.1f} passes of {row['pass_ms']:.2f} ms, decode and add "
                f"{row['decode_and_add_ms']:.2f} ms, extra memory {row['peak_extra_memory']:.2f} x"
            )
    for row in report.get("sizes", ()):
        print(
            f"{row['data']:>20} {row['parameters']:>9} {row['mode']:>8} {row['density']:>5.1%} "
            f"{row['bytes']:>8} B {row['times_smaller']:>6.0f} x {row['bits']:>6.2f} bits, "
            f"iid {row['iid_bound']:>5.2f} ({row['over_iid']:+.1%}), "
            f"empirical {row['empirical_bound']:>5.2f} ({row['over_empirical']:+.1%}), "
            f"framing {row['framing']} B"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--real", action="store_true", help="also train models for real updates (minutes)")
    parser.add_argument("--speed-only", action="store_true", help="only the speed of this process")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    report: Row = {"machine": machine(), "speed": speed()}
    if not options.speed_only:
        report["speed_without_wide_vectors"] = speed_without_wide_vectors()
        updates = [(f"Laplace {size:,}", laplace(size)) for size in (1_000_000, LARGE)]
        updates += real_updates() if options.real else ()
        report["sizes"] = [row for name, vector in updates for row in sizes(name, vector)]
    if options.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report)) if options.json else show(report)


if __name__ == "__main__":
    main()
