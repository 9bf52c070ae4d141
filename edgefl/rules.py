# SPDX-License-Identifier: Apache-2.0
"""Values whose fields carry their own rule: one in hand is a valid one.

A field is annotated `Annotated[type, rule]`; where it is an option that people set, `Annotated[type, rule,
"what it is"]`, with a short flag such as "-b" behind where it has one. A rule takes a value and where it
stands, and gives the checked value. Rules run whenever a value is made.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar, get_type_hints

from edgefl.errors import OptionError, ProtocolError
from edgefl.plain import harmless

C = TypeVar("C", bound="Checked")
_SPACES = dict.fromkeys(map(ord, "\t\r\n"), " ")


class Broken(ValueError):
    """A rule does not take a value; whoever applied the rule turns this into an error of its own.

    Attributes:
        allowed: what the rule takes, in words; empty where the message says it all.
    """

    def __init__(self, message: str, allowed: str = "") -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        allowed: in words, to be read after "allowed is".
        span: the same in few words for a list of options, where it is a range; or "".
        check: gives the checked value, or raises Broken; its arguments are the value and where it stands.
        read: the value in text that people write, or ValueError; None where it is written as Python has it.
    """

    allowed: str
    check: Callable[[object, str], Any]
    span: str = ""
    read: Callable[[str], object] | None = None

    def __call__(self, value: object, where: str) -> Any:
        return self.check(value, where)


class Checked:
    """Base of frozen dataclasses whose fields carry rules."""

    _rules: ClassVar[Mapping[str, Rule]] = {}
    _idle: ClassVar[Mapping[str, object]] = {}

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        marked = {name: hint.__metadata__ for name, hint in hints.items() if hasattr(hint, "__metadata__")}
        cls._rules = {name: found[0] for name, found in marked.items() if isinstance(found[0], Rule)}

    def __post_init__(self) -> None:
        for name, rule in self._rules.items():
            value = getattr(self, name)
            try:
                checked = rule(value, f"{type(self).__name__}.{name}")
            except Broken as exc:
                raise self._error(exc, name, value) from None
            object.__setattr__(self, name, checked)

    @classmethod
    def rules(cls) -> Mapping[str, Rule]:
        """The rule of every field that has one."""
        return cls._rules

    @classmethod
    def _error(cls, broken: Broken, name: str, value: object) -> Exception:
        if not broken.allowed:
            return OptionError(str(broken))
        return OptionError(f"allowed is {broken.allowed}", {name: value})

    def to_json(self, *, defaults: bool = True) -> dict[str, Any]:
        """The fields as JSON values.

        Args:
            defaults: also those, however deep, that have the value they would have anyway.
        """
        values = ((name, getattr(self, name), idle) for name, idle in self._defaults().items())
        return {name: _plain(v, defaults) for name, v, idle in values if defaults or v != idle}

    @classmethod
    def _defaults(cls) -> Mapping[str, object]:
        """What each field is where it is not given, MISSING where it has to be; such values do not change."""
        if "_idle" not in cls.__dict__:
            cls._idle = {
                f.name: f.default if f.default_factory is MISSING else f.default_factory()
                for f in fields(cls)  # type: ignore[arg-type]
            }
        return cls._idle

    @classmethod
    def _read(cls: type[C], value: object, where: str) -> C:
        """Make one from JSON values; unknown names are ignored. Raises Broken, which says where."""
        if not isinstance(value, dict):
            raise refusal(where, value, "a JSON object")
        known = cls._defaults()
        if lacking := [name for name, idle in known.items() if idle is MISSING and name not in value]:
            raise Broken(f"{where} lacks {', '.join(sorted(lacking))}")
        given = {name: value[name] for name in known if name in value}
        checked = {n: cls._rules[n](v, f"{where}.{n}") if n in cls._rules else v for n, v in given.items()}
        try:
            return cls(**checked)
        except (OptionError, ProtocolError) as exc:
            raise Broken(f"{where}: {exc}") from exc


def integer(low: int, high: int) -> Rule:
    """An integer in `[low, high]`; true and false are none."""
    allowed = f"an integer from {low} to {high}"

    def check(value: object, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
            raise refusal(where, value, allowed)
        return int(value)

    return Rule(allowed, check, f"{low} or more" if high > 2**30 else f"{low} to {high}")


def number(low: float, high: float) -> Rule:
    """A number in `[low, high]`; NaN is in no range."""
    span = f"{low:g} to {high:g}"
    return _real(f"a number from {span}", lambda value: low <= value <= high, span)


def above(low: float, high: float = sys.float_info.max) -> Rule:
    """A number in `(low, high]`, by default every finite one; NaN is in no range."""
    span = f"over {low:g}" + ("" if high == sys.float_info.max else f", up to {high:g}")
    return _real(f"a number {span}", lambda value: low < value <= high, span)


def text(pattern: str) -> Rule:
    """Text the whole of which matches a pattern."""
    return _text(f"text matching {pattern}", lambda value: bool(re.fullmatch(pattern, value, re.DOTALL)))


def daily() -> Rule:
    """Two times of a day with a hyphen between them, such as 22:00-06:00."""
    time = r"([01]\d|2[0-3]):[0-5]\d"
    return _text(
        "two times of day such as 22:00-06:00", lambda value: bool(re.fullmatch(f"{time}-{time}", value))
    )


def readable(most: int) -> Rule:
    """Text for people, of at most so many characters; what commands terminals or forges lines is replaced."""
    rule = _text(f"text of at most {most} characters", lambda value: len(value) <= most)
    return replace(rule, check=lambda value, where: harmless(rule(value, where).translate(_SPACES)))


def one_of(*names: str) -> Rule:
    """One of some words."""
    return _text(f"one of {', '.join(names)}", lambda value: value in names)


def optional(inner: Rule) -> Rule:
    """None, or what another rule allows."""
    return replace(inner, check=lambda value, where: None if value is None else inner(value, where))


def byte_count(high: int) -> Rule:
    """An integer in `[0, high]`, which people write as 20000, 20kB, 1.5MB or 16KiB."""
    rule = integer(0, high)
    return replace(rule, allowed="a size such as 20000, 20kB, 1.5MB or 16KiB", span="", read=_bytes)


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise refusal(where, value, "true or false")
    return value


flag = Rule("true or false", _flag)
switch = Rule("true or false", _flag)
"""A flag that a command is given or not, so that nobody needs to say no."""


def refusal(where: str, value: object, allowed: str) -> Broken:
    """That a value at some place is not what is allowed there."""
    shown = json.dumps(value, default=str)
    return Broken(f"{where} is {shown:.80}, allowed is {allowed}", allowed)


def _real(allowed: str, good: Callable[[float], bool], span: str) -> Rule:
    def check(value: object, where: str) -> float:
        if isinstance(value, Real) and not isinstance(value, bool):
            # An integer of JSON may be too long for a float, though not for a comparison; a small float of
            # NumPy would have the bounds in its own precision.
            exact = value if isinstance(value, int) else float(value)
            if good(exact):
                return float(exact)
        raise refusal(where, value, allowed)

    return Rule(allowed, check, span)


def _text(allowed: str, good: Callable[[str], bool]) -> Rule:
    def check(value: object, where: str) -> str:
        if not isinstance(value, str) or not good(value):
            raise refusal(where, value, allowed)
        return value

    return Rule(allowed, check)


def _bytes(written: str) -> int:
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", written.strip().lower())
    if not found or found[2] not in units:
        raise ValueError(f"{written!r} is no size; write 20000, 20kB, 1.5MB or 16KiB")
    return int(float(found[1]) * units[found[2]])


def _plain(value: object, defaults: bool) -> object:
    if isinstance(value, Checked):
        return value.to_json(defaults=defaults)
    return [_plain(v, defaults) for v in value] if isinstance(value, tuple) else value
