# SPDX-License-Identifier: Apache-2.0
"""What a frame is made of: sections, streams, bits per nonzero, entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.delta import frame as frames
from edgefl.delta.codec import SparseDelta, decode
from edgefl.delta.coders import CODER_NAMES, entropy_bytes, restore
from edgefl.delta.frame import Limits
from edgefl.delta.sections import KINDS, STREAM_COUNTS
from edgefl.delta.table import Coded, Section
from edgefl.parameters import Schema

INSPECTED_SIZE = 1 << 26
"""Updates over more parameters than this are inspected only with limits given."""


@dataclass(frozen=True)
class StreamAnatomy:
    """One stream: name, coder, bytes on the wire, bytes decoded, and their order-0 entropy in bytes."""

    name: str
    coder: str
    coded: int
    decoded: int
    entropy: float


@dataclass(frozen=True)
class SectionAnatomy:
    """One section: kind, entry of the table, and its streams."""

    kind: str
    section: Section
    streams: tuple[StreamAnatomy, ...]

    @property
    def coded(self) -> int:
        """Bytes of all streams."""
        return sum(stream.coded for stream in self.streams)


@dataclass(frozen=True)
class FrameAnatomy:
    """A whole frame.

    Attributes:
        size: bytes of the frame.
        framing: bytes that are neither streams nor metadata.
        schema_id, base_version, unbiased, meta: from the header.
        nonzeros: values carried.
        norm: Euclidean length of the update.
        largest: largest magnitude.
        sections: in order.
    """

    size: int
    framing: int
    schema_id: bytes
    base_version: int
    unbiased: bool
    meta: Mapping[str, Any]
    nonzeros: int
    norm: float
    largest: float
    sections: tuple[SectionAnatomy, ...]

    @property
    def bits_per_nonzero(self) -> float:
        """Bits of the whole frame for every value carried."""
        return 8 * self.size / max(self.nonzeros, 1)


def inspect_frame(frame: bytes, limits: Limits | None = None) -> FrameAnatomy:
    """Take a frame apart.

    Args:
        frame: the bytes.
        limits: what it may be; without, the frame's own schema is believed, up to 2**26 parameters.

    Raises:
        DeltaError: its subclass for the first thing found wrong.
    """
    limits = limits or Limits(bytes(frame[8:16]), INSPECTED_SIZE)
    update = decode(frame, limits)
    header, coded = frames.parse(frame, limits, STREAM_COUNTS)
    sections = tuple(_section(part) for part in coded)
    meta_length = frames.HEADER.unpack_from(frame)[-2]
    return FrameAnatomy(
        size=len(frame),
        framing=len(frame) - meta_length - sum(section.coded for section in sections),
        schema_id=header.schema_id,
        base_version=header.base_version,
        unbiased=update.unbiased,
        meta=header.meta,
        nonzeros=len(update.indices),
        norm=update.norm,
        largest=float(np.abs(update.values).max(initial=np.float32(0))),
        sections=sections,
    )


def tensor_norms(update: SparseDelta, schema: Schema) -> dict[str, float]:
    """Euclidean length of every tensor's part of an update, by name in the schema's order."""
    squares = np.concatenate(([0.0], np.cumsum(update.values.astype(np.float64) ** 2)))
    norms = {}
    for parameter, start, stop in schema.ranges():
        first, last = np.searchsorted(update.indices, (start, stop))
        norms[parameter.name] = float(np.sqrt(max(squares[last] - squares[first], 0.0)))
    return norms


def _section(coded: Coded) -> SectionAnatomy:
    kind, decoded = KINDS[coded.section.kind], {}

    def read(stream: int, size: int) -> bytes:
        decoded[stream] = restore(coded.streams[stream], size)
        return decoded[stream]

    kind.decode(coded.section, read)
    streams = (
        StreamAnatomy(
            name,
            CODER_NAMES[stream.coder],
            len(stream.data),
            len(decoded[i]),
            entropy_bytes(decoded[i]),
        )
        for i, (name, stream) in enumerate(zip(kind.streams, coded.streams, strict=True))
    )
    return SectionAnatomy(kind.name, coded.section, tuple(streams))
