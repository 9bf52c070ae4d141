# SPDX-License-Identifier: Apache-2.0
"""`edgefl verify`: whether a bundle's files are what it says, and whether the engines here compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from edgefl.cli import coreml
from edgefl.cli.options import AsJson, BundlePath, open_bundle
from edgefl.cli.output import err, print_json, print_line, print_rows

if TYPE_CHECKING:
    from edgefl.bundle import Bundle
    from edgefl.converters.engines import Finding

DIFFERS = "differs"
_VERDICTS = {"right": "agrees", "wrong": DIFFERS}


@dataclass(frozen=True)
class Check:
    """What one engine makes of a graph on all batches.

    Attributes:
        backend: the engine and its release.
        delegate: `cpu` for the engine's own code.
        target, kind: the file's.
        difference: the worst over what is allowed to it, None where it did not run.
        verdict: `agrees`, `differs`, `agrees beside a kink`, or that it does not run.
        reason: in words.
    """

    backend: str
    delegate: str
    target: str
    kind: str
    difference: float | None
    verdict: str
    reason: str = ""


def verify(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Check every hash, then run each file on each engine here, on its golden batch and on another."""
    from edgefl.bundle.missing import check_whole

    opened = open_bundle(bundle)
    check_whole(opened.manifest)
    with err.status("computing with NumPy ...") as status:
        loss = golden_loss(opened)
        checks = check_engines(opened, lambda stage: status.update(f"{stage} ..."))
    wrong = [check for check in checks if check.verdict in (DIFFERS, "crashed", coreml.INVALID)]
    if as_json:
        rows = [asdict(check) for check in checks]
        print_json({"artifacts": len(opened.manifest.artifacts), "loss": loss, "checks": rows})
    else:
        print_line(f"{len(opened.manifest.artifacts)} artifacts, every sha256 as declared")
        if loss is not None:
            print_line(f"loss of one step on the golden batch: {loss:.6g}")
        _show(checks)
    if wrong:
        raise typer.Exit(1)


def golden_loss(bundle: Bundle) -> float | None:
    """The loss of the golden step by NumPy; None where the bundle has no ONNX step."""
    from edgefl.graph import read_onnx, run
    from edgefl.proof import golden_feeds

    if bundle.manifest.find("onnx", "step") is None:
        return None
    return float(run(read_onnx(bundle.artifact("onnx", "step")), golden_feeds(bundle, "step"))["loss"])


def check_engines(bundle: Bundle, tell: Callable[[str], None] = lambda stage: None) -> list[Check]:
    """Every file on every engine, with and without its delegates, against NumPy."""
    from edgefl.converters.prove import prove_anew

    proof = prove_anew(bundle, tell)
    rows: dict[tuple[str, ...], list[Finding]] = {}
    for finding in (*proof.findings, *proof.kinks):
        place = (finding.engine, finding.delegate, finding.target, finding.kind)
        rows.setdefault(place, []).append(finding)
    checks = [_check(found, set(proof.kinks)) for found in rows.values()]
    if "coreml" in bundle.manifest.targets:
        checks.append(Check("coreml", "-", "coreml", "all", None, coreml.validity(bundle)))
    return checks


def _check(found: list[Finding], kinks: set[Finding]) -> Check:
    bad = [finding for finding in found if finding.state != "right"]
    worst = max(bad or found, key=lambda finding: (finding not in kinks, finding.error))
    ran = worst.state in _VERDICTS
    verdict = "agrees beside a kink" if worst in kinks else _VERDICTS.get(worst.state, worst.state)
    return Check(
        worst.engine,
        worst.delegate,
        worst.target,
        worst.kind,
        worst.error if ran else None,
        verdict,
        f"on {worst.batch}, {worst.reason}" if worst.reason and ran else worst.reason,
    )


def _show(checks: list[Check]) -> None:
    print_rows(
        "Files on the engines here",
        ["engine", "delegate", "file", "of what is allowed", "verdict"],
        [(c.backend, c.delegate, f"{c.target}/{c.kind}", _share(c.difference), c.verdict) for c in checks],
    )
    for line in _reasons(checks):
        print_line(line)


def _reasons(checks: list[Check]) -> Iterator[str]:
    for check in checks:
        if check.reason:
            yield f"{check.target}/{check.kind} on {check.backend} ({check.delegate}): {check.reason}"


def _share(difference: float | None) -> str:
    return "-" if difference is None else f"{difference:.1%}" if difference < 10 else f"{difference:.2g} x"
