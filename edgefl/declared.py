# SPDX-License-Identifier: Apache-2.0
"""The options that classes of `edgefl.options` declare, as any command line or file has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from edgefl.errors import OptionError
from edgefl.options import SECTIONS, nearest
from edgefl.rules import Broken, Checked, Rule, switch
from edgefl.toml import read_toml

Reader = Callable[[Any, str], Any]
"""Gives the checked value; its arguments are the value and how it is written."""


class Option(NamedTuple):
    """A field of a class of options.

    Attributes:
        rule: what values it takes.
        help: what it is.
        flags: as the command line has it, the long one first.
        type: of the value, `X | None` where it may be left open.
        default: of the field.
        section: of a file, which is how a list of options groups them too.
    """

    rule: Rule
    help: str
    flags: tuple[str, ...]
    type: Any
    default: Any
    section: str

    @property
    def key(self) -> str:
        """Its name in a file."""
        return self.flags[0].removeprefix("--").replace("-", "_")

    @property
    def told(self) -> str:
        """What it is, with the range of its values."""
        return f"{self.help} [{self.rule.span}]" if self.rule.span else self.help

    @property
    def negative(self) -> str:
        """The flag that says no; "" where there is none."""
        return f"--no-{self.flags[0][2:]}" if self.type is bool and self.rule is not switch else ""


class Given(NamedTuple):
    """An option that a file gives."""

    section: str
    name: str | None
    value: Any
    said: str


def options_of(kind: type[Checked]) -> Mapping[str, Option]:
    """The options of a class, by field."""
    hints, made = get_type_hints(kind, include_extras=True), {}
    section = next(name for name, whole in SECTIONS.items() if issubclass(whole, kind))
    for field in fields(kind):  # type: ignore[arg-type]
        of, rule, told, *short = get_args(hints[field.name])
        flag = "--" + field.name.removesuffix("_s").replace("_", "-")
        made[field.name] = Option(rule, told, (flag, *short), of, field.default, section)
    return made


def given_in(file: Path, own: Mapping[str, Mapping[str, tuple[str | None, Reader]]]) -> Iterator[Given]:
    """Every option in a TOML file, checked.

    Args:
        own: sections beside those of `edgefl.options`: by key, what the option is called and its check.

    Raises:
        OptionError: a section or a name there is not, or a value its rule does not take.
    """
    for section, table in read_toml(file).items():
        if not isinstance(table, dict):
            raise OptionError(f"{file}: {section} stands outside any section, such as [fit]")
        keys = _keys(section, own, file)
        for key, value in table.items():
            if key not in keys:
                raise OptionError(f"{file}: [{section}] has no option {key!r}{nearest(key, list(keys))}")
            said = f"{section}.{key} = {value!r} in {file}"
            name, read = keys[key]
            yield Given(section, name, read(value, said), said)


def checked(rule: Rule, value: Any, said: str) -> Any:
    """A value from a file by its rule; OptionError says how it is written there."""
    try:
        return rule(rule.read(value) if rule.read and isinstance(value, str) else value, "")
    except Broken as exc:
        raise OptionError(f"{said}: allowed is {exc.allowed}") from exc
    except ValueError as exc:
        raise OptionError(f"{said}: {exc}") from exc


def _keys(
    section: str, own: Mapping[str, Mapping[str, tuple[str | None, Reader]]], file: Path
) -> Mapping[str, tuple[str | None, Reader]]:
    if section in SECTIONS:
        options = options_of(SECTIONS[section])
        return {o.key: (name, partial(checked, o.rule)) for name, o in options.items()}
    if section not in own:
        raise OptionError(f"{file} has a section [{section}]{nearest(section, [*SECTIONS, *own])}")
    return own[section]
