# SPDX-License-Identifier: Apache-2.0
"""`edgefl merge`: LoRA factors folded into the weights, for deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import AsJson, BundlePath, check_folder, open_bundle
from edgefl.cli.output import err, print_json, print_line, size


def merge(
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")] = Path(
        "merged.edgefl"
    ),
    as_json: AsJson = False,
) -> None:
    """Fold the LoRA factors of a trained bundle into its weights: a bundle that predicts, without a step."""
    from edgefl.converters.merge import merge_bundle

    check_folder(output)
    opened = open_bundle(bundle)
    with err.status("merging ..."):
        merged = merge_bundle(opened)
    merged.save(output)
    weights = str(merged.manifest.provenance["merged"]).split(", ")
    kinds = [f"{a.target}/{a.kind}" for a in merged.manifest.artifacts]
    if as_json:
        count = output.stat().st_size
        print_json({"bundle": str(output), "bytes": count, "merged": weights, "artifacts": kinds})
        return
    print_line(f"{output}: {size(output.stat().st_size)}, {len(weights)} weights merged, {', '.join(kinds)}")
