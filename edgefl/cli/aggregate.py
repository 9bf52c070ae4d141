# SPDX-License-Identifier: Apache-2.0
"""`edgefl aggregate`: payloads, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from edgefl.cli.options import AsJson, BundlePath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, size
from edgefl.errors import DeltaError

T = TypeVar("T")

Payloads = Annotated[
    list[Path], typer.Argument(help="Coded updates, one file per device.", show_default=False)
]


def aggregate(
    bundle: BundlePath,
    payloads: Payloads,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Write the new bundle here.", show_default=False)
    ],
    weights: Annotated[
        str | None, typer.Option(help="Comma-separated weights, such as example counts; equal if absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Average updates into the next version of a bundle."""
    import edgefl
    from edgefl.proof import renewed

    check_folder(output)
    factors = [_number(w) for w in weights.split(",")] if weights else None
    opened = open_bundle(bundle)
    frames = [path.read_bytes() for path in payloads]
    for path, frame in zip(payloads, frames, strict=True):
        _naming(path, edgefl.decode_delta, frame, opened)
    made = renewed(edgefl.aggregate(opened, frames, factors))
    made.save(output)
    row = {
        "updates": len(payloads),
        "bytes": sum(map(len, frames)),
        "model_version": made.manifest.model_version,
        "bundle": str(output),
    }
    if as_json:
        print_json(row)
        return
    updates = f"{len(frames)} update{'s' * (len(frames) > 1)}, {size(sum(map(len, frames)))}"
    print_line(f"{output}: version {made.manifest.model_version}, moved by the mean of {updates}")


def _naming(path: Path, call: Callable[..., T], *arguments: Any) -> T:
    """A call whose errors about a payload name its file."""
    try:
        return call(*arguments)
    except DeltaError as exc:
        raise type(exc)(f"{path}: {exc}") from exc


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no number; give one weight per payload, as in 120,80"
        ) from None
