# SPDX-License-Identifier: Apache-2.0
"""`edgefl aggregate` and `edgefl delta inspect`: payloads, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgefl.cli.options import AsJson, BundlePath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.errors import DeltaError

if TYPE_CHECKING:
    from edgefl.delta.anatomy import FrameAnatomy, SectionAnatomy

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

    check_folder(output)
    factors = [_number(w) for w in weights.split(",")] if weights else None
    opened = open_bundle(bundle)
    frames = [path.read_bytes() for path in payloads]
    for path, frame in zip(payloads, frames, strict=True):
        _naming(path, edgefl.decode_delta, frame, opened)
    made = edgefl.aggregate(opened, frames, factors)
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


def inspect_delta(
    payload: Annotated[Path, typer.Argument(help="A coded update.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Anatomy of an update: sections, streams, coders, bits per value."""
    from dataclasses import asdict

    from edgefl.delta import inspect_frame

    anatomy = _naming(payload, inspect_frame, payload.read_bytes())
    if as_json:
        print_json({**asdict(anatomy), "bits_per_nonzero": anatomy.bits_per_nonzero})
    else:
        _print_anatomy(anatomy)


def _print_anatomy(anatomy: FrameAnatomy) -> None:
    kind = "random draw, unbiased" if anatomy.unbiased else "largest changes"
    values = f"{_values(anatomy.nonzeros)} ({kind})"
    print_line(f"{size(anatomy.size)}: {values}, {anatomy.bits_per_nonzero:.1f} bits each")
    print_line(f"schema {anatomy.schema_id.hex()}, made from version {anatomy.base_version}")
    print_line(f"length {anatomy.norm:.4g}, largest change {anatomy.largest:.4g}")
    print_line("".join(f"{key} {value}  " for key, value in anatomy.meta.items()).rstrip() or "no metadata")
    for i, section in enumerate(anatomy.sections):
        _print_section(i, section)
    print_line(f"header, section table and checksum: {size(anatomy.framing)}")


def _print_section(number: int, section: SectionAnatomy) -> None:
    table = section.section
    last = table.start + table.length - 1
    title = (
        f"section {number}: {section.kind}, {_values(table.count)} of parameters {table.start:,} to {last:,}"
    )
    rows = [(s.name, s.coder, s.coded, s.decoded, f"{abs(s.entropy):.0f}") for s in section.streams]
    print_rows(title, ["stream", "coder", "bytes", "decoded", "entropy in bytes"], rows)


def _values(count: int) -> str:
    return f"{count:,} value{'s' * (count != 1)}"


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
