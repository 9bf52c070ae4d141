# SPDX-License-Identifier: Apache-2.0
"""Messages: checked values that travel as JSON. Rules are applied by the sender as by the receiver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from edgefl.errors import ProtocolError
from edgefl.rules import Broken, Checked, Rule, refusal
from edgefl.strictjson import canonical, parse

M = TypeVar("M", bound="Message")


@dataclass(frozen=True)
class Message(Checked):
    """Base of all messages."""

    @classmethod
    def _error(cls, broken: Broken, name: str, value: object) -> Exception:
        return ProtocolError(str(broken))

    def to_bytes(self) -> bytes:
        """The message as UTF-8 JSON, without what is as it would be anyway: most of a task is."""
        return canonical(self.to_json(defaults=False))

    @classmethod
    def from_json(cls: type[M], value: object, where: str = "") -> M:
        """Read a message from JSON values. Unknown fields are ignored, so that a newer peer may add some.

        Raises:
            ProtocolError: not an object, a field is missing, or a value breaks its field's rule.
        """
        try:
            return cls._read(value, where or cls.__name__)
        except Broken as exc:
            raise ProtocolError(str(exc)) from exc

    @classmethod
    def from_bytes(cls: type[M], body: bytes) -> M:
        """Read a message from UTF-8 JSON; raises ProtocolError as `from_json` does."""
        return cls.from_json(parse(body, ProtocolError, cls.__name__))


def nested(kind: type[Checked]) -> Rule:
    """Another message, or other checked values."""
    return Rule(
        f"a {kind.__name__}",
        lambda value, where: value if isinstance(value, kind) else kind._read(value, where),
    )


def several(kind: type[Message], most: int) -> Rule:
    """A list of at most `most` messages, as a tuple."""
    each, allowed = nested(kind), f"a list of at most {most}"

    def check(value: object, where: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > most:
            raise refusal(where, value, allowed)
        return tuple(each(v, f"{where}[{i}]") for i, v in enumerate(value))

    return Rule(allowed, check)
