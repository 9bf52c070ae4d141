# SPDX-License-Identifier: Apache-2.0
"""Messages whose fields carry their own rule: a message in hand is a valid one.

A field is annotated `Annotated[type, rule]`; a rule takes a value and where it stands, and gives the checked
value or raises ProtocolError. Rules run whenever a message is made, by the sender as by the receiver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeVar, get_type_hints

from edgefl.errors import ProtocolError
from edgefl.strictjson import canonical, parse

Rule = Callable[[object, str], Any]
M = TypeVar("M", bound="Message")


@dataclass(frozen=True)
class Message:
    """Base of all messages."""

    _rules: ClassVar[dict[str, Rule]] = {}

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        cls._rules = {name: h.__metadata__[0] for name, h in hints.items() if hasattr(h, "__metadata__")}

    def __post_init__(self) -> None:
        for name, rule in self._rules.items():
            checked = rule(getattr(self, name), f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, checked)

    def to_json(self) -> dict[str, Any]:
        """The message as JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def to_bytes(self) -> bytes:
        """The message as UTF-8 JSON."""
        return canonical(self.to_json())

    @classmethod
    def from_json(cls: type[M], value: object, where: str = "") -> M:
        """Read a message from JSON values. Unknown fields are ignored, so that a newer peer may add some.

        Raises:
            ProtocolError: not an object, a field is missing, or a value breaks its field's rule.
        """
        if not isinstance(value, dict):
            raise _refusal(where or cls.__name__, value, "a JSON object")
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        if not needed <= value.keys():
            raise ProtocolError(f"{where or cls.__name__} lacks {', '.join(sorted(needed - value.keys()))}")
        return cls(**{f.name: value[f.name] for f in fields(cls) if f.name in value})

    @classmethod
    def from_bytes(cls: type[M], body: bytes) -> M:
        """Read a message from UTF-8 JSON; raises ProtocolError as `from_json` does."""
        return cls.from_json(parse(body, ProtocolError, cls.__name__))


def integer(low: int, high: int) -> Rule:
    """An integer in `[low, high]`; true and false are none."""

    def rule(value: object, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refusal(where, value, f"an integer from {low} to {high}")
        return value

    return rule


def number(low: float, high: float) -> Rule:
    """A number in `[low, high]`; NaN is in no range."""

    def rule(value: object, where: str) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        raise _refusal(where, value, f"a number from {low:g} to {high:g}")

    return rule


def text(pattern: str) -> Rule:
    """Text the whole of which matches a pattern."""

    def rule(value: object, where: str) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value, re.DOTALL) is None:
            raise _refusal(where, value, f"text matching {pattern}")
        return value

    return rule


def flag(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _refusal(where, value, "true or false")
    return value


def optional(inner: Rule) -> Rule:
    """None, or what another rule allows."""
    return lambda value, where: None if value is None else inner(value, where)


def nested(kind: type[Message]) -> Rule:
    """Another message."""
    return lambda value, where: value if isinstance(value, kind) else kind.from_json(value, where)


def several(kind: type[Message], most: int) -> Rule:
    """A list of at most `most` messages, as a tuple."""
    each = nested(kind)

    def rule(value: object, where: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            raise _refusal(where, value, f"a list of at most {most}")
        return tuple(each(v, f"{where}[{i}]") for i, v in enumerate(value))

    return rule


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return value.to_json()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _refusal(where: str, value: object, allowed: str) -> ProtocolError:
    shown = json.dumps(value, default=str)
    return ProtocolError(f"{where} is {shown:.80}, allowed is {allowed}")
