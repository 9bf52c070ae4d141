# SPDX-License-Identifier: Apache-2.0
"""The options of `edgefl device` from a command line, by argparse: a device need not have more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from edgefl import __version__
from edgefl.declared import Option, given_in, options_of
from edgefl.errors import EdgeflError, OptionError
from edgefl.options import DataOptions, DeviceOptions, EngineOptions, LimitOptions, WhenOptions
from edgefl.plain import harmless, message_of, print_failure
from edgefl.rules import Broken, Checked

KINDS = (DeviceOptions, EngineOptions, WhenOptions, LimitOptions, DataOptions)


def parsed(
    arguments: Sequence[str],
) -> tuple[DeviceOptions, EngineOptions, WhenOptions, LimitOptions, DataOptions]:
    """The values a command line gives; what is typed wins over --config, the file over the defaults.

    Raises:
        OptionError: what the file holds, or two options that do not go together.
        SystemExit: wrong usage, or --help.
    """
    parser = _parser()
    typed = vars(parser.parse_args(arguments))
    file = typed.pop("config", None)
    known = {(option.section, name) for kind in KINDS for name, option in options_of(kind).items()}
    given_by_file = given_in(Path(file), {}) if file else ()
    found = {one.name: one for one in given_by_file if (one.section, one.name) in known}
    given = {**{str(name): one.value for name, one in found.items()}, **typed}

    def spelled(name: str, value: object) -> str:
        if name in typed or name not in found:
            return f"--{name.removesuffix('_s').replace('_', '-')} {value}"
        return found[name].said

    try:
        device, engine, when, limits, reading = (_made(kind, given) for kind in KINDS)
    except OptionError as exc:
        raise OptionError(exc.spelled(spelled)) from exc
    return device, engine, when, limits, reading  # type: ignore[return-value]


def reported(work: Callable[[], None]) -> int:
    """The exit status of some work; what it raises on purpose is one line on standard error."""
    try:
        work()
    except (EdgeflError, OSError) as exc:
        if "--json" in sys.argv:
            print_failure(exc)
        said = harmless(" ".join(message_of(exc).split()))
        print(f"error ({type(exc).__name__}) {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _made(kind: type[Checked], given: Mapping[str, Any]) -> Checked:
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})  # type: ignore[arg-type]


def _parser() -> argparse.ArgumentParser:
    """One option per field; none has a default here, so that what was typed can be told."""
    made = argparse.ArgumentParser(
        prog="edgefl device",
        description=DeviceOptions.__doc__,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"edgefl {__version__}")
    made.add_argument("--config", metavar="FILE", help="TOML file of options by section; what is typed wins.")
    for kind in KINDS:
        options = options_of(kind)
        group = made.add_argument_group(f"options of section {next(iter(options.values())).section}")
        for name, option in options.items():
            _add(group, name, option)
    return made


def _add(group: argparse._ArgumentGroup, name: str, option: Option) -> None:
    told = option.told.replace("%", "%%")
    if option.type is bool:
        group.add_argument(*option.flags, dest=name, action="store_true", help=told)
        if option.negative:
            group.add_argument(option.negative, dest=name, action="store_false", help=argparse.SUPPRESS)
        return
    kind = next((one for one in get_args(option.type) if one is not type(None)), option.type)
    metavar = "SIZE" if option.rule.read else kind.__name__.upper()
    group.add_argument(*option.flags, dest=name, type=_reader(option, kind), metavar=metavar, help=told)


def _reader(option: Option, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Text to a value that its rule takes."""

    def read(text: str) -> Any:
        try:
            return option.rule((option.rule.read or kind)(text), "")
        except Broken as exc:
            raise argparse.ArgumentTypeError(f"{text}, allowed is {exc.allowed}") from exc
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text}: {exc}") from exc

    return read
