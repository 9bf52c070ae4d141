# SPDX-License-Identifier: Apache-2.0
"""`edgefl aggregate` and `edgefl delta inspect`: payloads, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import AsJson, BundlePath
from edgefl.cli.output import out, print_json, print_rows

Payloads = Annotated[list[Path], typer.Argument(help="Coded updates, one file per device.")]


def aggregate(
    bundle: BundlePath,
    payloads: Payloads,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the new bundle here.")],
    weights: Annotated[
        str | None, typer.Option(help="Comma-separated weights, such as example counts; equal if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Average updates into the next version of a bundle."""
    import edgefl
    from edgefl import Bundle

    parsed = [_number(w) for w in weights.split(",")] if weights else None
    opened = Bundle.open(bundle)
    made = edgefl.aggregate(opened, [path.read_bytes() for path in payloads], parsed)
    made.save(output)
    row = {
        "updates": len(payloads),
        "bytes": sum(path.stat().st_size for path in payloads),
        "model_version": made.manifest.model_version,
        "bundle": str(output),
    }
    if as_json:
        print_json(row)
    else:
        print_rows("", list(row), [list(row.values())])


def inspect_delta(
    payload: Annotated[Path, typer.Argument(help="A coded update.")], as_json: AsJson = False
) -> None:
    """Anatomy of a payload: sections, streams, bits per nonzero."""
    from dataclasses import asdict

    from edgefl.delta import inspect_frame

    anatomy = asdict(inspect_frame(payload.read_bytes()))
    if as_json:
        print_json({k: v.hex() if isinstance(v, bytes) else v for k, v in anatomy.items()})
        return
    for key, value in anatomy.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            for i, row in enumerate(value):
                _print_nested(f"{key} {i}", row)
        else:
            out.print(f"{key:16} {value.hex() if isinstance(value, bytes) else value}")


def _print_nested(title: str, row: dict[str, object]) -> None:
    simple = {k: v for k, v in row.items() if not isinstance(v, list | tuple | dict)}
    print_rows(title, list(simple), [list(simple.values())])
    for key, value in row.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            print_rows(key, list(value[0]), [list(v.values()) for v in value])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no number; give one weight per payload, as in 120,80"
        ) from None
