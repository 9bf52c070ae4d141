# SPDX-License-Identifier: Apache-2.0
"""Commands that take whole values of options.

A parameter of a command annotated with a class of `edgefl.options` becomes one option per field, and the
command gets `--config`. What is typed wins over the file, the file over the defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli import config
from edgefl.cli.fields import annotated
from edgefl.declared import options_of
from edgefl.errors import OptionError
from edgefl.rules import Broken, Checked


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it; its errors name options as the user wrote them."""
    signature = inspect.signature(command, eval_str=True)
    groups = {p.name: p.annotation for p in signature.parameters.values() if _is_group(p.annotation)}
    if groups:
        config.takes_file(command.__name__, signature)

    def run(context: typer.Context, **given: Any) -> None:
        given.pop("config", None)
        try:
            values = {name: _made(kind, given, context) for name, kind in groups.items()}
            command(**given, **values)
        except OptionError as exc:
            raise OptionError(exc.spelled(partial(_spelled, context))) from exc

    parameters = list(_parameters(signature, groups))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _parameters(
    signature: inspect.Signature, groups: Mapping[str, type[Checked]]
) -> Iterator[inspect.Parameter]:
    parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    yield parameter("context", annotation=typer.Context)
    if groups:
        yield parameter("config", annotation=Annotated[Path | None, config.option()], default=None)
    for one in signature.parameters.values():
        if one.name not in groups:
            yield one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        for name, option in options_of(groups[one.name]).items():
            yield parameter(name, annotation=annotated(option), default=option.default)


def _made(kind: type[Checked], given: dict[str, Any], context: typer.Context) -> Checked:
    """The value of a group; wrong usage where what was typed breaks a field's rule."""
    values = {name: given.pop(name) for name in options_of(kind)}
    for name, option in options_of(kind).items():
        try:
            option.rule(values[name], name)
        except Broken as exc:
            param = _param(context, name)
            raise typer.BadParameter(
                f"{values[name]}, allowed is {exc.allowed}", ctx=context, param=param
            ) from exc
    return kind(**values)


def _spelled(context: typer.Context, name: str, value: object) -> str:
    """An option with its value as the user wrote it."""
    param = _param(context, name)
    if param is None:
        return f"{name}={value!r}"
    flag = max(param.opts, key=len)
    typed = str(flag) if value is True else f"{flag} {value}"
    return config.written(context, name) or typed


def _param(context: typer.Context, name: str) -> Any:
    return next((param for param in context.command.params if param.name == name), None)


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Checked)
