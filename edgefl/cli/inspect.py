# SPDX-License-Identifier: Apache-2.0
"""`edgefl inspect`: what a bundle holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli import coreml
from edgefl.cli.options import AsJson, BundlePath, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.cli.report import print_proof
from edgefl.errors import MissingDependency

if TYPE_CHECKING:
    from edgefl.bundle import Bundle, Manifest


def inspect(
    bundle: BundlePath,
    signature: Annotated[
        bool,
        typer.Option("--signature", help="What each file takes and gives, for running it without edgefl."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What a bundle holds: parameters and roles, artifacts, sizes, where it came from."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    if signature:
        _print_signatures(manifest, as_json)
        return
    if as_json:
        print_json(manifest.to_json() | {"signature": _signature(opened)})
        return
    facts = f"version {manifest.model_version}, {manifest.loss}, batches of {manifest.batch_size}"
    print_line(f"{manifest.name}: {facts}")
    print_line(", ".join(f"{key} {value}" for key, value in manifest.provenance.items()))
    if signed := _signature(opened):
        print_line(f"signed by {signed['key_id']}, {signed['key']}: {signed['verdict']}")
    print_rows(
        "Parameters",
        ["name", "shape", "role", "elements"],
        [(p.name, "x".join(map(str, p.shape)) or "scalar", p.role, p.size) for p in manifest.parameters],
    )
    print_rows(
        "Artifacts",
        ["target", "kind", "size", "sha256"],
        [(a.target, a.kind, size(a.size), a.sha256[:16]) for a in manifest.artifacts],
    )
    print_proof(manifest.report)
    if "coreml" in manifest.targets:
        columns = ["kind", "size", "system", "operations", "float16", "note"]
        print_rows("Core ML files", columns, coreml.files(manifest))


def _signature(bundle: Bundle) -> dict[str, str] | None:
    """Who says to have signed a bundle, and whether that is so; None where nobody does."""
    from edgefl.bundle.publisher import key_line

    found = bundle.signature
    if found is None:
        return None
    try:
        good = found.genuine and bundle.covered
    except MissingDependency as exc:
        verdict = f"not verified: {exc}"
    else:
        verdict = "genuine" if good else "not a signature of this bundle"
    return {"key_id": found.key_id, "key": key_line(found.key), "verdict": verdict}


def _print_signatures(manifest: Manifest, as_json: bool) -> None:
    from edgefl.bundle.signature import signature

    found = [(a, ports) for a in manifest.artifacts if (ports := signature(manifest, a))]
    if as_json:
        files = [
            {"target": a.target, "kind": a.kind, "path": a.path, "tensors": [asdict(p) for p in ports]}
            for a, ports in found
        ]
        print_json({"files": files})
        return
    for artifact, ports in found:
        rows = [(p.direction, p.name, p.own, p.dtype, "x".join(map(str, p.shape)) or "scalar") for p in ports]
        print_rows(artifact.path, ["", "name", "in the file", "dtype", "shape"], rows)
