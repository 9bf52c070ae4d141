# SPDX-License-Identifier: Apache-2.0
"""Nested protobuf messages, walked by a table of where messages lie, without keeping or reading the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgefl.errors import BundleUnsafe
from edgefl.graph.protobuf import fields

MAX_DEPTH = 100
"""Messages inside one another, protobuf's own limit: readers that go on beyond it differ from its own."""

MAX_FIELDS = 1 << 23
"""Fields of one file, since each takes time: ten times what the largest graphs of ours have."""

Layout = Mapping[str, Mapping[int, str]]
"""Message -> field number -> the message found there."""


@dataclass(frozen=True)
class Field:
    """One field on the way.

    Attributes:
        message: in which message of the layout it lies.
        value: an integer, or the bytes of any other wire type.
    """

    message: str
    number: int
    value: int | memoryview

    def text(self) -> str:
        """The value as a string; what is none is replaced, so that it equals no name that is allowed."""
        return "" if isinstance(self.value, int) else bytes(self.value).decode("utf-8", "replace")


def walk(data: memoryview, layout: Layout, root: str, where: str) -> Iterator[Field]:
    """Every field of every message the layout leads to, those given twice included.

    Raises:
        GraphError: malformed.
        BundleUnsafe: too deep, too many fields, or a number where a message must be.
    """
    waiting, seen = [(root, data.cast("B"), 0)], 0
    while waiting:
        message, content, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BundleUnsafe(f"{where}: messages are nested deeper than {MAX_DEPTH}")
        inside = layout[message]
        for number, value in fields(content, where):
            seen += 1
            if seen > MAX_FIELDS:
                raise BundleUnsafe(f"{where} has more than {MAX_FIELDS} fields")
            if number in inside:
                if isinstance(value, int):
                    raise BundleUnsafe(f"{where}: field {number} of a {message} is a number, not a message")
                waiting.append((inside[number], value, depth + 1))
            yield Field(message, number, value)
