# SPDX-License-Identifier: Apache-2.0
"""A field of a class of options as an option of the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import typer

from edgefl.options import SECTIONS
from edgefl.rules import Checked, Rule


class Option(NamedTuple):
    """A field of a class of options as the command line has it."""

    rule: Rule
    help: str
    flags: tuple[str, ...]
    type: Any
    default: Any
    panel: str

    @property
    def key(self) -> str:
        """Its name in a file."""
        return self.flags[0].removeprefix("--").replace("-", "_")

    @property
    def annotation(self) -> Any:
        """The same for typer."""
        return Annotated[self.type, self.mark]

    @property
    def mark(self) -> Any:
        """What stands beside the type in that annotation."""
        first, *short = self.flags
        read, told = self.rule.read, f"{self.help} [{self.rule.span}]" if self.rule.span else self.help
        if read is not None:
            parser = partial(_parsed, read)
            return typer.Option(
                first, *short, help=told, parser=parser, metavar="SIZE", rich_help_panel=self.panel
            )
        both = f"{first}/--no-{first[2:]}" if self.type is bool else first
        return typer.Option(both, *short, help=told, rich_help_panel=self.panel)


def options_of(kind: type[Checked]) -> Mapping[str, Option]:
    """The options of a class, by field."""
    hints, made = get_type_hints(kind, include_extras=True), {}
    section = next(name for name, whole in SECTIONS.items() if issubclass(whole, kind))
    for field in fields(kind):  # type: ignore[arg-type]
        of, rule, told, *short = get_args(hints[field.name])
        flag = "--" + field.name.removesuffix("_s").replace("_", "-")
        made[field.name] = Option(
            rule, told, (flag, *short), of, field.default, f"Options of section {section}"
        )
    return made


def _parsed(read: Callable[[str], object], text: Any) -> object:
    try:
        return read(str(text))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
