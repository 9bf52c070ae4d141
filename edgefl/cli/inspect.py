# SPDX-License-Identifier: Apache-2.0
"""`edgefl inspect` and `edgefl verify`: what a bundle holds, and whether it does what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli import coreml
from edgefl.cli.options import AsJson, BundlePath, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.errors import EdgeflError

if TYPE_CHECKING:
    from edgefl.bundle import Bundle, Manifest

TOLERANCE = 1e-4  # relative difference to the NumPy reference, float32 engines


def inspect(
    bundle: BundlePath,
    signature: Annotated[
        bool,
        typer.Option("--signature", help="What each file takes and gives, for running it without edgefl."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What a bundle holds: parameters and roles, artifacts, sizes, where it came from."""
    manifest = open_bundle(bundle).manifest
    if signature:
        _print_signatures(manifest, as_json)
        return
    if as_json:
        print_json(manifest.to_json())
        return
    facts = f"version {manifest.model_version}, {manifest.loss}, batches of {manifest.batch_size}"
    print_line(f"{manifest.name}: {facts}")
    print_line(", ".join(f"{key} {value}" for key, value in manifest.provenance.items()))
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
    if "coreml" in manifest.targets:
        columns = ["kind", "size", "system", "operations", "float16", "note"]
        print_rows("Core ML files", columns, coreml.files(manifest))


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


@dataclass(frozen=True)
class Check:
    """One engine's step on the golden batch, compared with the NumPy reference."""

    backend: str
    loss: float | None
    difference: float | None
    verdict: str


def verify(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Check every hash, then run each engine's step on the golden batch against the NumPy reference."""
    from edgefl.bundle.missing import check_whole

    opened = open_bundle(bundle)
    check_whole(opened.manifest)
    for artifact in opened.manifest.artifacts:
        opened.artifact(artifact.target, artifact.kind)
    checks = check_backends(opened)
    wrong = [c for c in checks if c.verdict in ("differs", coreml.INVALID)]
    if as_json:
        print_json({"artifacts": len(opened.manifest.artifacts), "checks": [asdict(c) for c in checks]})
    else:
        print_line(f"{len(opened.manifest.artifacts)} artifacts, every sha256 as declared")
        rows = [(c.backend, _text(c.loss), _text(c.difference), c.verdict) for c in checks]
        print_rows("One step on the golden batch", ["backend", "loss", "difference", "verdict"], rows)
    if wrong:
        raise typer.Exit(1)


def check_backends(bundle: Bundle) -> list[Check]:
    """The step of every engine that can run here, worst relative difference over loss and gradients."""
    from edgefl.runtime import BACKENDS, Trainer

    golden = bundle.golden()
    inputs = {spec.name: golden[spec.name] for spec in bundle.manifest.inputs}
    labels = {head.label.name: golden[head.label.name] for head in bundle.manifest.heads}
    reference = Trainer(bundle, backend="numpy").loss_and_gradients(inputs, labels)
    checks = [Check("numpy", reference[0], 0.0, "reference")]
    for name in (engine for engine in BACKENDS if engine != "numpy"):
        try:
            loss, gradients = Trainer(bundle, backend=name).loss_and_gradients(inputs, labels)
        except EdgeflError as exc:
            checks.append(Check(name, None, None, str(exc)))
            continue
        worst = max(_relative(loss, reference[0]), _apart(gradients, reference[1]))
        checks.append(Check(name, loss, worst, "agrees" if worst <= TOLERANCE else "differs"))
    if "ort-training" in bundle.manifest.targets:
        checks.append(_own_training(bundle, "ort-training", inputs, labels, reference))
    if "coreml" in bundle.manifest.targets:
        checks.append(Check("coreml", None, None, coreml.validity(bundle)))
    return checks


def _own_training(
    bundle: Bundle, name: str, inputs: dict[str, Any], labels: dict[str, Any], reference: tuple[float, Any]
) -> Check:
    """One SGD step of an engine that shows no gradients: how far it moved each parameter, over the rate."""
    from edgefl.runtime import Trainer

    rate = 16.0  # so long that rounding of the parameters does not show beside the move
    try:
        trainer = Trainer(bundle, backend=name)
        before = trainer.parameters()
        loss = trainer.fit(inputs, labels, lr=rate, steps=1).loss_first
    except EdgeflError as exc:
        return Check(name, None, None, str(exc))
    after = trainer.parameters()
    moved = {n: (value - after[n]) / rate for n, value in before.items()}
    worst = max(_relative(loss, reference[0]), _apart(moved, reference[1]))
    return Check(name, loss, worst, "agrees" if worst <= TOLERANCE else "differs")


def _apart(gradients: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """The worst relative difference.

    Gradients far below the largest are rounding noise, as that of a bias before a BatchNorm with the batch's
    statistics, and are compared with a thousandth of the largest.
    """
    import numpy as np

    least = 1e-3 * max(float(np.linalg.norm(g)) for g in reference.values())
    return max(_relative(gradients[name], g, least) for name, g in reference.items())


def _relative(value: object, reference: object, least: float = 1e-12) -> float:
    import numpy as np

    a, b = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), least, 1e-12))


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
