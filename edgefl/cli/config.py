# SPDX-License-Identifier: Apache-2.0
"""`--config`: a file's options become the defaults of the command.

A section is a class of `edgefl.options`, or holds what only one command has and is called as it is. One file
serves all commands: each takes what it has options for, and all of it is checked.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

import typer
from typer.models import OptionInfo

from edgefl.declared import Reader, checked, given_in
from edgefl.errors import OptionError
from edgefl.options import SECTIONS
from edgefl.rules import flag, integer, number, text

_META = "edgefl.config"
_LOWEST = -(2**63)


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
        made = checked(rules.get(kinds[0], text(".*")), value, said)
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
    mine = {param.name for param in context.command.params}
    # What a command calls as a section does is not that section's: `key` of [device] is none of serve's.
    own = {each.name for each in _OWN.get(str(context.info_name), ())}
    found = [
        given
        for given in given_in(value, {command: _keys(owns) for command, owns in _OWN.items()})
        if given.name in mine
        and (given.section == context.info_name or (given.section in SECTIONS and given.name not in own))
    ]
    context.default_map = {**(context.default_map or {}), **{str(one.name): one.value for one in found}}
    context.meta[_META] = {one.name: one.said for one in found}
    return value


def _keys(owns: list[Own]) -> Mapping[str, tuple[str | None, Reader]]:
    return {own.key: (own.name, own.checked) for own in owns}
