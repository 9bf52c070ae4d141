# SPDX-License-Identifier: Apache-2.0
"""`--config`: a file's options become the defaults of the command.

A section is a class of `edgefl.options`, or holds what only one command has and is called as it is. One file
serves all commands: each takes what it has options for, and all of it is checked.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

import typer
from typer.models import OptionInfo

from edgefl.cli.fields import options_of
from edgefl.cli.toml import read_toml
from edgefl.errors import OptionError
from edgefl.options import SECTIONS, nearest
from edgefl.rules import Broken, Rule, flag, integer, number, text

_META = "edgefl.config"
_LOWEST = -(2**63)
Reader = Callable[[Any, str], Any]
"""Gives the checked value; its arguments are the value and how it is written."""


class Own(NamedTuple):
    """An option that only one command has: its parameter, type and `typer.Option`."""

    name: str
    type: Any
    mark: Any

    @property
    def key(self) -> str:
        """Its name in a file."""
        flags = [flag for flag in self.mark.param_decls or () if flag.startswith("--")]
        return (flags[0] if flags else self.name).lstrip("-").replace("-", "_")

    def checked(self, value: Any, said: str) -> Any:
        """The value as the command line takes it: paths are text."""
        kinds = [kind for kind in get_args(self.type) if kind is not NoneType] or [self.type]
        rules = {bool: flag, int: integer(_LOWEST, -_LOWEST), float: number(-math.inf, math.inf)}
        made = _checked(rules.get(kinds[0], text(".*")), value, said)
        if self.mark.min is not None and made < self.mark.min:
            raise OptionError(f"{said}: allowed is {self.mark.min} or more")
        if self.mark.max is not None and made > self.mark.max:
            raise OptionError(f"{said}: allowed is {self.mark.max} or less")
        return made


_OWN: dict[str, list[Own]] = {}
"""By command, of those that take a file."""


def takes_file(command: str, signature: inspect.Signature) -> None:
    """Remember that a command has `--config`, and the options it has for itself."""
    found = {name: get_args(parameter.annotation) for name, parameter in signature.parameters.items()}
    marked = {name: args for name, args in found.items() if len(args) > 1 and isinstance(args[1], OptionInfo)}
    _OWN[command] = [Own(name, of, mark) for name, (of, mark, *_) in marked.items()]


def option() -> Any:
    """`--config` itself."""
    return typer.Option(
        "--config",
        help="TOML file of options by section, as in \\[fit] lr = 0.05; what is typed wins over it.",
        callback=_load,
        is_eager=True,  # before any other option looks for its value
    )


def written(context: typer.Context, name: str) -> str | None:
    """How the file has a parameter whose value it gave; None where it gave none."""
    source = context.get_parameter_source(name)
    if source is None or source.name != "DEFAULT_MAP":
        return None
    said: str = context.meta[_META][name]
    return said


def _load(context: typer.Context, value: Path | None) -> Path | None:
    if value is None or context.resilient_parsing:
        return value
    found = {name: pair for name, *pair in _found(read_toml(value), value, context) if name is not None}
    context.default_map = {
        **(context.default_map or {}),
        **{name: given for name, (given, _) in found.items()},
    }
    context.meta[_META] = {name: said for name, (_, said) in found.items()}
    return value


def _found(
    tables: Mapping[str, Any], file: Path, context: typer.Context
) -> Iterator[tuple[str | None, Any, str]]:
    """The command's parameter, None where it has none, its value, and how that is written."""
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise OptionError(f"{file}: {section} stands outside any section, such as [fit]")
        keys = _keys(section, context, file)
        for key, value in table.items():
            if key not in keys:
                raise OptionError(f"{file}: [{section}] has no option {key!r}{nearest(key, list(keys))}")
            said = f"{section}.{key} = {value!r} in {file}"
            name, read = keys[key]
            yield name, read(value, said), said


def _keys(section: str, context: typer.Context, file: Path) -> Mapping[str, tuple[str | None, Reader]]:
    """The options of a section: the parameter of this command, None where it has none, and the check."""
    if section in SECTIONS:
        mine = {param.name for param in context.command.params}
        options = options_of(SECTIONS[section])
        return {o.key: (n if n in mine else None, partial(_checked, o.rule)) for n, o in options.items()}
    if section not in _OWN:
        raise OptionError(f"{file} has a section [{section}]{nearest(section, [*SECTIONS, *_OWN])}")
    here = section == context.info_name
    return {own.key: (own.name if here else None, own.checked) for own in _OWN[section]}


def _checked(rule: Rule, value: Any, said: str) -> Any:
    try:
        return rule(rule.read(value) if rule.read and isinstance(value, str) else value, "")
    except Broken as exc:
        raise OptionError(f"{said}: allowed is {exc.allowed}") from exc
    except ValueError as exc:
        raise OptionError(f"{said}: {exc}") from exc
