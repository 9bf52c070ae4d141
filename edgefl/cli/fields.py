# SPDX-License-Identifier: Apache-2.0
"""Commands that take whole values of options: each field is an option of the command, or a line of a file.

A parameter of a command annotated with a class of `edgefl.options` becomes one option per field, and the
command gets `--config`. What is typed wins over the file, the file over the defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import typer

from edgefl.cli.toml import read_toml
from edgefl.errors import OptionError
from edgefl.options import SECTIONS, nearest
from edgefl.rules import Broken, Checked, Rule

_FILES = "edgefl.options"


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


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it; its errors name options as the user wrote them."""
    signature = inspect.signature(command, eval_str=True)
    groups = {p.name: p.annotation for p in signature.parameters.values() if _is_group(p.annotation)}

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
        yield parameter("config", annotation=Annotated[Path | None, _config()], default=None)
    for one in signature.parameters.values():
        if one.name not in groups:
            yield one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        for name, option in options_of(groups[one.name]).items():
            yield parameter(name, annotation=option.annotation, default=option.default)


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


# -- the file


def _config() -> Any:
    return typer.Option(
        "--config",
        help="TOML file of options by section, as in \\[fit] lr = 0.05; what is typed wins over it.",
        callback=_load,
        is_eager=True,  # before any other option looks for its value
    )


def _load(context: typer.Context, value: Path | None) -> Path | None:
    """Make a file's options the defaults of the command."""
    if value is None or context.resilient_parsing:
        return value
    found = dict(_found(read_toml(value), value, context))
    context.default_map = {**(context.default_map or {}), **{name: v for name, (v, _) in found.items()}}
    context.meta[_FILES] = {name: said for name, (_, said) in found.items()}
    return value


def _found(
    tables: Mapping[str, Any], file: Path, context: typer.Context
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Parameters of the command that the file gives, with their values and how they are written there."""
    for section, table in tables.items():
        keys = _keys(section, context, file)
        if not isinstance(table, dict):
            raise OptionError(f"{file}: {section} stands outside any section, as in [fit]")
        for key, value in table.items():
            if key not in keys:
                raise OptionError(f"{file}: [{section}] has no option {key!r}{nearest(key, list(keys))}")
            said = f"{section}.{key} = {value!r} in {file}"
            name, read = keys[key]
            if name is not None:
                yield name, (read(value, said), said)


Reader = Callable[[Any, str], Any]


def _keys(section: str, context: typer.Context, file: Path) -> Mapping[str, tuple[str | None, Reader]]:
    """The options of a section: the parameter of this command, None where it has none, and the check."""
    mine = {param.name: param for param in context.command.params}
    if section in SECTIONS:
        options = options_of(SECTIONS[section])
        return {o.key: (n if n in mine else None, partial(_checked, o.rule)) for n, o in options.items()}
    commands = {} if context.parent is None else getattr(context.parent.command, "commands", {})
    takers = [name for name, found in commands.items() if any(p.name == "config" for p in found.params)]
    if section not in takers:
        raise OptionError(f"{file} has a section [{section}]{nearest(section, [*SECTIONS, *takers])}")
    grouped = {name for kind in SECTIONS.values() for name in options_of(kind)} | {"config"}
    own = [p for p in commands[section].params if p.param_type_name == "option" and p.name not in grouped]
    here = section == context.info_name
    return {
        max(p.opts, key=len).lstrip("-").replace("-", "_"): (
            p.name if here else None,
            partial(_converted, p, context),
        )
        for p in own
    }


def _checked(rule: Rule, value: Any, said: str) -> Any:
    try:
        return rule(rule.read(value) if rule.read and isinstance(value, str) else value, "")
    except Broken as exc:
        raise OptionError(f"{said}: allowed is {exc.allowed}") from exc
    except ValueError as exc:
        raise OptionError(f"{said}: {exc}") from exc


def _converted(param: Any, context: typer.Context, value: Any, said: str) -> Any:
    try:
        made = param.type_cast_value(context, value)
    except typer.BadParameter as exc:
        raise OptionError(f"{said}: {exc.message}") from exc
    if isinstance(made, bool | int | float) and (
        made != value or isinstance(made, bool) != isinstance(value, bool)
    ):
        raise OptionError(f"{said}: allowed is a value such as {made!r}")
    return made


# -- messages


def _spelled(context: typer.Context, name: str, value: object) -> str:
    """An option with its value as the user wrote it."""
    param = _param(context, name)
    if param is None:
        return f"{name}={value!r}"
    source = context.get_parameter_source(name)
    if source is not None and source.name == "DEFAULT_MAP":
        said: str = context.meta[_FILES][name]
        return said
    flag = max(param.opts, key=len)
    return str(flag) if value is True else f"{flag} {value}"


def _param(context: typer.Context, name: str) -> Any:
    return next((param for param in context.command.params if param.name == name), None)


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Checked)


def _parsed(read: Callable[[str], object], text: Any) -> object:
    try:
        return read(str(text))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
