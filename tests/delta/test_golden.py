# SPDX-License-Identifier: Apache-2.0
"""Exact bytes. `golden/frames.json` holds frames and what they mean, for decoders in any language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.delta import Limits, decode, encode

GOLDEN = json.loads((Path(__file__).parent / "golden" / "frames.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_frames_mean_what_they_always_meant(case: dict[str, Any]) -> None:
    if "zstd" in case["name"]:
        pytest.importorskip("zstandard")

    update = decode(bytes.fromhex(case["frame"]), Limits(bytes.fromhex(case["schema"]), case["size"]))

    assert update.indices.tolist() == case["indices"]
    assert update.values.astype("<f4").tobytes().hex() == case["values"]
    assert (update.base_version, update.unbiased, dict(update.meta)) == (
        case["base_version"],
        case["unbiased"],
        case["meta"],
    )


def test_a_frame_is_byte_for_byte_what_the_format_says() -> None:
    vector = np.zeros(1000, np.float32)
    vector[[2, 40, 41, 999]] = [0.5, -0.5, 1.0, -4.0]

    frame = encode(vector, schema_id=b"schema-8", base_version=258, k=4, coders=(), compact=False).frame

    assert frame.hex() == "".join(
        (
            "45464c55 01 00 0000 736368656d612d38 02010000 0100 0000 6f000000",
            "01 00 02 06 0000000000000000 e803000000000000 04000000 0000003f 0000003f 00000000 01000000",
            "00 04000000 00 02000000 00 01000000 00 01000000 00 01000000 00 00000000",
            # Gaps 2, 37, 0 and 957; 5 in three bits and 61 in seven; signs + - + -; levels 0, 0, 1 and 3 + 4.
            "02 14 00 27 ed01 0a d0 04",
            "979459ea",
        )
    ).replace(" ", "")


def test_a_compact_table_says_the_same_in_less() -> None:
    vector = np.zeros(1000, np.float32)
    vector[[2, 40, 41, 999]] = [0.5, -0.5, 1.0, -4.0]

    frame = encode(vector, schema_id=b"schema-8", base_version=258, k=4, coders=()).frame

    assert frame.hex() == "".join(
        (
            "45464c55 01 00 0200 736368656d612d38 02010000 0100 0000 38000000",
            # Kind 1, width code 2, c0 equal to the step; 1000 parameters from where the last section ended.
            "91 d00f 04 0000003f 00",
            "10 08 04 04 04 00",
            "02 14 00 27 ed01 0a d0 04",
            "3e492d71",
        )
    ).replace(" ", "")
