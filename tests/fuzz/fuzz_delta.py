# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of the frame decoder; not part of the test suite.

    pip install atheris
    python tests/fuzz/fuzz_delta.py -max_total_time=600 [CORPUS]

Every input is tried as it is, and once more with magic, schema, length and checksum repaired, so that damage
reaches the parser. Anything but a `DeltaError` or a sound update is a finding.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Iterator

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["edgefl"]):
    import numpy as np

    from edgefl.delta import Limits, decode, lattice
    from edgefl.errors import DeltaError

LIMITS = Limits(b"schema-8", 8192, max_nonzeros=4096, max_magnitude=1e6)


def attempts(data: bytes) -> Iterator[bytes]:
    yield data
    if len(data) >= 28:
        body = b"EFLU\x01\x00" + data[6:8] + LIMITS.schema_id + data[16:24]
        body += (len(data) + 4).to_bytes(4, "little") + data[28:]
        yield body + zlib.crc32(body).to_bytes(4, "little")


def one_input(data: bytes) -> None:
    one_body(data)
    for frame in attempts(data):
        try:
            update = decode(frame, LIMITS)
        except DeltaError:
            continue
        indices, values = update.indices, update.values
        assert len(indices) == len(values) <= 4096
        assert np.all(np.diff(indices) > 0) and np.all((indices >= 0) & (indices < 8192))
        assert np.all(np.abs(values) <= 1e6)


def one_body(data: bytes) -> None:
    """The same bytes as what a server may answer a device: frames one after the other."""
    for body in attempts(data):
        with contextlib.suppress(DeltaError):
            steps = list(
                lattice.decode_moves(
                    body + body, schema_id=LIMITS.schema_id, size=LIMITS.size, versions=range(1 << 32)
                )
            )
            assert len(steps) % 2 == 0 and all(np.isfinite(step.values).all() for step in steps)


def main() -> None:
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
