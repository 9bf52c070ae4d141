# SPDX-License-Identifier: Apache-2.0
"""A declared option as typer takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from edgefl.declared import Option


def annotated(option: Option) -> Any:
    """The type of a command's parameter."""
    return Annotated[option.type, mark(option)]


def mark(option: Option) -> Any:
    """What stands beside the type in that annotation."""
    first, *short = option.flags
    panel = f"Options of section {option.section}"
    if (read := option.rule.read) is not None:
        parser = partial(_parsed, read)
        return typer.Option(
            first, *short, help=option.told, parser=parser, metavar="SIZE", rich_help_panel=panel
        )
    both = f"{first}/{option.negative}" if option.negative else first
    return typer.Option(both, *short, help=option.told, rich_help_panel=panel)


def _parsed(read: Callable[[str], object], text: Any) -> object:
    try:
        return read(str(text))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
