# SPDX-License-Identifier: Apache-2.0
"""Section kinds 3 and 4: every parameter as it is, float32 or float16 times a power of two.

One stream per byte of the number, the lowest first: bytes of one significance share a code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np

from edgefl.delta.bits import Array, Ints
from edgefl.delta.coders import smallest
from edgefl.delta.grid import Grid
from edgefl.delta.table import Coded, Section
from edgefl.errors import DeltaSection
from edgefl.parameters import Vector

SINGLE, HALF = 3, 4
STREAM_NAMES = {SINGLE: ("byte 0", "byte 1", "byte 2", "byte 3"), HALF: ("byte 0", "byte 1")}

_TYPES = {SINGLE: "<f4", HALF: "<f2"}
_TOP_EXPONENT = 15
_SMALLEST_EXPONENT = -126

Read = Callable[[int, int], bytes]


def encode(start: int, vector: Vector, kind: int, coders: Collection[str]) -> tuple[Coded, Vector]:
    """A section of all parameters from `start` on, and what its decoder sees.

    float16 is scaled so that its range fits the values: updates are too small for it as they are.
    """
    scale = _scale(vector) if kind == HALF else 1.0
    numbers = (vector * np.float32(1 / scale)).astype(_TYPES[kind])
    planes = numbers.view(np.uint8).reshape(len(vector), -1)
    streams = tuple(smallest(planes[:, i].tobytes(), coders) for i in range(planes.shape[1]))
    section = Section(kind, 0, 0, start, len(vector), len(vector), Grid(scale, scale, 0.0))
    return Coded(section, streams), _values(numbers, scale)


def decode(section: Section, read: Read) -> tuple[Ints, Vector]:
    """All positions, and values."""
    if section.count != section.length or section.mode or section.width or section.escapes:
        raise DeltaSection(
            f"raw section of {section.length} parameters with {section.count} values, mode {section.mode}, "
            f"width {section.width} and {section.escapes} escapes; the last three must be 0"
        )
    size = len(STREAM_NAMES[section.kind])
    planes = np.empty((section.count, size), np.uint8)
    for i in range(size):
        planes[:, i] = np.frombuffer(read(i, section.count), np.uint8)
    numbers = planes.reshape(-1).view(_TYPES[section.kind])
    positions = np.arange(section.start, section.start + section.length)
    return positions, _values(numbers, section.grid.step)


def _values(numbers: Array, scale: float) -> Vector:
    with np.errstate(over="ignore", invalid="ignore"):
        values: Vector = (numbers.astype(np.float64) * scale).astype(np.float32)
    return values


def _scale(vector: Vector) -> float:
    """A power of two that brings the largest magnitude just below 2**15."""
    top = float(np.abs(vector).max(initial=np.float32(0)))
    exponent = math.frexp(top)[1] if top else 0
    return 2.0 ** max(exponent - _TOP_EXPONENT, _SMALLEST_EXPONENT)
