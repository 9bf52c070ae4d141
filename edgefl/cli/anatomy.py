# SPDX-License-Identifier: Apache-2.0
"""`edgefl delta inspect`: what an update is made of, where its bytes go, and which tensors it moves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.options import AsJson, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.errors import DeltaError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle
    from edgefl.delta.anatomy import FrameAnatomy, SectionAnatomy

_TELLING = 4096
"""Streams of fewer bytes say little about how well they are coded."""


def inspect_delta(
    payload: Annotated[Path, typer.Argument(help="A coded update.", show_default=False)],
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle it belongs to: also tells how far each tensor moves.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Anatomy of an update: sections, streams, bits per value, entropy; with a bundle, its tensors."""
    from edgefl.delta import Limits, inspect_frame

    frame = payload.read_bytes()
    model = open_bundle(bundle) if bundle else None
    schema = model.schema() if model else None
    try:
        anatomy = inspect_frame(frame, Limits(schema.id, schema.size) if schema else None)
    except DeltaError as exc:
        raise type(exc)(f"{payload}: {exc}") from exc
    tensors = _tensors(frame, model) if model else []
    if as_json:
        extra = {"tensors": tensors} if model else {}
        print_json({**asdict(anatomy), "bits_per_nonzero": anatomy.bits_per_nonzero, **extra})
        return
    _print_frame(anatomy, schema.size if schema else None)
    for i, section in enumerate(anatomy.sections):
        _print_section(i, section)
    _print_bytes(anatomy)
    if model:
        _print_tensors(tensors, anatomy.norm)


def _tensors(frame: bytes, model: Bundle) -> list[dict[str, object]]:
    """Of every shared tensor: name, shape, elements, values the update carries, and its norm."""
    import numpy as np

    from edgefl.delta import Limits, decode, tensor_norms

    schema = model.schema()
    update = decode(frame, Limits(schema.id, schema.size))
    norms = tensor_norms(update, schema)
    rows: list[dict[str, object]] = []
    for parameter, start, stop in schema.ranges():
        first, last = np.searchsorted(update.indices, (start, stop)).tolist()
        rows.append(
            {
                "name": parameter.name,
                "shape": list(parameter.shape),
                "elements": stop - start,
                "values": last - first,
                "norm": norms[parameter.name],
            }
        )
    return rows


def _print_frame(anatomy: FrameAnatomy, parameters: int | None) -> None:
    said = f"{size(anatomy.size)}: {_values(anatomy.nonzeros)}, {anatomy.bits_per_nonzero:.2f} bits each"
    if parameters:
        said += f", {4 * parameters / anatomy.size:,.0f} x smaller than {parameters:,} float32"
    print_line(said)
    drawn = "rounded at random, unbiased" if anatomy.unbiased else "not at random: what is left out is biased"
    print_line(f"schema {anatomy.schema_id.hex()}, made from version {anatomy.base_version}, {drawn}")
    print_line(f"length {anatomy.norm:.4g}, largest change {anatomy.largest:.4g}")
    print_line("  ".join(f"{key} {value}" for key, value in anatomy.meta.items()) or "no metadata")


def _print_section(number: int, section: SectionAnatomy) -> None:
    table = section.section
    last = table.start + table.length - 1
    print_rows(
        f"section {number}: {section.kind}, {_values(table.count)} of parameters {table.start:,} to {last:,}",
        ["stream", "coder", "bytes", "bits/value", "decoded", "entropy"],
        [
            (s.name, s.coder, s.coded, f"{8 * s.coded / table.count:.3f}", s.decoded, f"{abs(s.entropy):.0f}")
            for s in section.streams
            if s.coded or s.decoded
        ],
    )


def _print_bytes(anatomy: FrameAnatomy) -> None:
    coded = sum(section.coded for section in anatomy.sections)
    entropy = sum(abs(stream.entropy) for section in anatomy.sections for stream in section.streams)
    framing, metadata = size(anatomy.framing), size(anatomy.size - anatomy.framing - coded)
    print_line(f"streams {size(coded)}, metadata {metadata}, header, section table and checksum: {framing}")
    if coded >= _TELLING:
        over = coded / entropy - 1
        print_line(f"order-0 entropy of the streams {size(entropy)}: they take {over:+.1%}")


def _print_tensors(tensors: list[dict[str, object]], norm: float) -> None:
    rows = []
    for tensor in tensors:
        shape, length = tensor["shape"], tensor["norm"]
        assert isinstance(shape, list) and isinstance(length, float)
        part = (length / norm) ** 2 if norm else 0.0
        sizes = "x".join(map(str, shape)) or "scalar"
        rows.append(
            (tensor["name"], sizes, tensor["elements"], tensor["values"], f"{length:.4g}", f"{part:.1%}")
        )
    print_rows("Tensors", ["name", "shape", "elements", "values", "length", "of the energy"], rows)


def _values(count: int) -> str:
    return f"{count:,} value{'s' * (count != 1)}"
