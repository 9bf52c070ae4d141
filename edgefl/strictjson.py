# SPDX-License-Identifier: Apache-2.0
"""Reading JSON from strangers: no duplicate keys, no NaN, no surprise types, and every message says where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from edgefl.errors import EdgeflError

_T = TypeVar("_T")


def parse(data: bytes, error: type[EdgeflError], where: str) -> Any:
    """Decode UTF-8 JSON, raising `error` where it is malformed, doubles a key or holds NaN or infinity."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse)
        if b"\\ud" in data.lower():
            # Half of a pair of surrogates is no character: nothing that has it can be written out again.
            canonical(value)
        return value
    except (ValueError, RecursionError) as exc:
        raise error(f"{where} is not valid JSON: {exc}") from exc


def canonical(value: object) -> bytes:
    """Encode with sorted keys, so that equal values give equal bytes.

    Raises:
        TypeError, ValueError: JSON has no word for a value in there.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Fields:
    """One JSON object, read field by field with its types checked."""

    def __init__(self, value: object, where: str, error: type[EdgeflError]) -> None:
        if not isinstance(value, dict):
            raise error(f"{where} is {_kind(value)}, expected an object")
        self._value, self._where, self._error = value, where, error

    def only(self, *names: str, optional: Iterable[str] = ()) -> Fields:
        """Insist on exactly these field names, and allow the optional ones."""
        missing = sorted(set(names) - set(self._value))
        unknown = sorted(set(self._value) - set(names) - set(optional))
        if missing or unknown:
            raise self._error(f"{self._where}: missing fields {missing}, unknown fields {unknown}")
        return self

    def text(self, name: str, *, shortest: int = 1, longest: int = 512) -> str:
        """A string of `shortest` to `longest` characters."""
        value: str = self._typed(name, str, "a string")
        if not shortest <= len(value) <= longest:
            raise self._error(
                f"{self._where}.{name} has {len(value)} characters, allowed {shortest} to {longest}"
            )
        return value

    def has(self, name: str) -> bool:
        return name in self._value

    def flag(self, name: str) -> bool:
        """True or false."""
        return self._typed(name, bool, "true or false")

    def choice(self, name: str, allowed: Iterable[str]) -> str:
        value = self.text(name, shortest=0)
        if value not in (options := list(allowed)):
            raise self._error(f"{self._where}.{name} is {value!r}, allowed {_words(options)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer in `[low, high]`."""
        return self._in_range(self._typed(name, int, "an integer"), low, high, name)

    def integers(self, name: str, low: int, high: int, *, most: int) -> tuple[int, ...]:
        """A list of at most `most` integers in `[low, high]`."""
        values = self.items(name, most=most)
        for i, value in enumerate(values):
            if type(value) is not int:
                raise self._error(f"{self._where}.{name}[{i}] is {_kind(value)}, expected an integer")
            self._in_range(value, low, high, f"{name}[{i}]")
        return tuple(values)

    def strings(self, name: str, *, most: int) -> tuple[str, ...]:
        """A list of at most `most` strings."""
        values = self.items(name, most=most)
        for i, value in enumerate(values):
            if type(value) is not str:
                raise self._error(f"{self._where}.{name}[{i}] is {_kind(value)}, expected a string")
        return tuple(values)

    def items(self, name: str, *, most: int) -> list[Any]:
        values: list[Any] = self._typed(name, list, "a list")
        if len(values) > most:
            raise self._error(f"{self._where}.{name} has {len(values)} elements, allowed {most}")
        return values

    def objects(self, name: str, *, most: int) -> list[Fields]:
        """A list of objects, each ready to be read."""
        rows = self.items(name, most=most)
        return [Fields(row, f"{self._where}.{name}[{i}]", self._error) for i, row in enumerate(rows)]

    def object(self, name: str) -> Fields:
        return Fields(self._value.get(name), f"{self._where}.{name}", self._error)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object whose content is free."""
        value: dict[str, Any] = self._typed(name, dict, "an object")
        return value

    def texts(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        value = self.mapping(name)
        for key, item in value.items():
            if not isinstance(item, str):
                raise self._error(f"{self._where}.{name}.{key} is {_kind(item)}, expected a string")
        return value

    def _typed(self, name: str, kind: type[_T], words: str) -> _T:
        value = self._value.get(name)
        if type(value) is not kind:
            raise self._error(f"{self._where}.{name} is {_kind(value)}, expected {words}")
        return value

    def _in_range(self, value: int, low: int, high: int, name: str) -> int:
        if not low <= value <= high:
            raise self._error(f"{self._where}.{name} is {value}, allowed {low} to {high}")
        return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"key {repeated(name for name, _ in pairs)[0]!r} appears more than once")
    return found


def repeated(names: Iterable[str]) -> list[str]:
    """Names that occur more than once, sorted, with one look at each: whoever sends many gains nothing."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _words(options: Iterable[str]) -> str:
    return ", ".join(option or "nothing" for option in options)


def _kind(value: object) -> str:
    return "absent or null" if value is None else f"of type {type(value).__name__}"
