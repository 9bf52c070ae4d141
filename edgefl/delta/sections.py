# SPDX-License-Identifier: Apache-2.0
"""The kinds of sections a frame may hold, and how each turns streams into positions and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgefl.delta import ints, raw, sparse
from edgefl.delta.bits import Ints
from edgefl.delta.coders import restore
from edgefl.delta.table import Coded, Section
from edgefl.parameters import Vector


@dataclass(frozen=True)
class Kind:
    """One kind of section.

    Attributes:
        name: for people.
        streams: names of its streams, in order.
        decode: section and stream reader -> positions, values.
    """

    name: str
    streams: tuple[str, ...]
    decode: Callable[[Section, Callable[[int, int], bytes]], tuple[Ints, Vector]]


KINDS: Mapping[int, Kind] = {
    sparse.KIND: Kind("sparse", sparse.STREAM_NAMES, sparse.decode),
    ints.DENSE: Kind("dense", ints.DENSE_STREAMS, ints.decode_dense),
    raw.SINGLE: Kind("float32", raw.STREAM_NAMES[raw.SINGLE], raw.decode),
    raw.HALF: Kind("float16", raw.STREAM_NAMES[raw.HALF], raw.decode),
    ints.SUBSET: Kind("subset", ints.SUBSET_STREAMS, ints.decode_subset),
}

STREAM_COUNTS: Mapping[int, int] = {kind: len(k.streams) for kind, k in KINDS.items()}


def decode_section(coded: Coded) -> tuple[Ints, Vector]:
    """Ascending positions in the whole vector, int64 of shape `(count,)`, and float32 values.

    Raises:
        DeltaError: the subclass for what is wrong with its streams.
    """

    def read(stream: int, size: int) -> bytes:
        return restore(coded.streams[stream], size)

    return KINDS[coded.section.kind].decode(coded.section, read)
