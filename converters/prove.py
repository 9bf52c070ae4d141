# SPDX-License-Identifier: Apache-2.0
"""No file leaves a conversion unproved: each runs on every engine here, and must give what NumPy gives.

A file is written if the engines it is written for agree with NumPy: onnxruntime for ONNX, LiteRT and
tflite-runtime for TFLite, on their own kernels and with the delegate of their package, onnxruntime-training
for its artifacts. OpenVINO shares the ONNX files: where it disagrees that is reported, and devices refuse it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgefl.bundle import Bundle
from edgefl.converters.engines import Engine, Finding, installed, tried
from edgefl.converters.golden import Goldens
from edgefl.errors import NotProved
from edgefl.proof import golden_feeds, nudged, sketched, stored_sketch

Stage = Callable[[str], None]

GOLDEN, RANDOM = "the golden batch", "a batch drawn at random"

_NUDGE = 1e-3
"""Relative; far enough to leave a kink, near enough for a wrong engine to stay wrong."""

_NUDGES = 2
_DRAWS = 4
_RANDOM_SEED = 1 << 16


@dataclass(frozen=True)
class Proof:
    """What the engines of this machine made of a bundle's files.

    Attributes:
        findings: for every engine, file and batch.
        batches: those that were tried.
        kinks: what is wrong where a ReLU or a maximum has its kink, and right beside it: no fault.
    """

    findings: tuple[Finding, ...]
    batches: tuple[str, ...]
    kinks: tuple[Finding, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong on engines that share a file, in sentences."""
        return tuple(
            dict.fromkeys(
                f"{finding}; devices pass over that engine"
                for finding in self.findings
                if finding.shares and finding.state in ("wrong", "crashed")
            )
        )

    def to_json(self) -> dict[str, Any]:
        """One row per engine and delegate: which files are right there, and which are not and why."""
        return {
            "batches": list(self.batches),
            "kinks": list(map(str, self.kinks)),
            "engines": list(_rows(self.findings)),
        }


NO_PROOF: Mapping[str, Any] = {"batches": [], "kinks": [], "engines": []}
"""A bundle's report of proof where it was converted without."""


def prove(bundle: Bundle, goldens: Goldens, tell: Stage) -> tuple[Bundle, Proof]:
    """The bundle, perhaps with another golden batch, and what the engines here make of it.

    Where an engine is off at a kink of the golden batch, another is drawn, so that no device meets the kink.

    Raises:
        NotProved: an engine that a file is written for does not compute it; names parameter and engine.
    """
    other = goldens.on(bundle, _RANDOM_SEED)
    kinks: list[Finding] = []
    for draw in range(1, _DRAWS + 1):
        proof = examine({GOLDEN: bundle, RANDOM: other}, tell)
        check(proof)
        kinks += proof.kinks
        if draw == _DRAWS or not any(finding.batch == GOLDEN for finding in proof.kinks):
            break
        bundle = goldens.on(bundle, goldens.seed + draw)
    return bundle, replace(proof, kinks=tuple(kinks))


def prove_anew(bundle: Bundle, tell: Stage) -> Proof:
    """What the engines here make of a finished bundle, on its golden batch and on one drawn at random.

    Without ONNX graphs, as in a device's slice, nothing is known but what the bundle's own proof says.
    """
    batches = {GOLDEN: bundle if bundle.proof() else sketched(bundle)}
    if bundle.manifest.find("onnx", "step"):
        batches[RANDOM] = Goldens().on(bundle, _RANDOM_SEED)
    return examine(batches, tell)


def examine(batches: Mapping[str, Bundle], tell: Stage) -> Proof:
    """What every engine here makes of the files of bundles that differ in their golden batches only."""
    bundle = next(iter(batches.values()))
    engines = [engine for engine in installed() if _files(bundle, engine)]
    tell(f"proving the files on {', '.join(dict.fromkeys(e.package for e in engines))}")
    findings = _run(batches, engines)
    wrong = [f for f in findings if f.state == "wrong" and not f.kind.endswith("-int8")]
    kinks = {f for batch, b in batches.items() for f in _kinks(b, [w for w in wrong if w.batch == batch])}
    return Proof(tuple(f for f in findings if f not in kinks), tuple(batches), tuple(kinks))


def _run(batches: Mapping[str, Bundle], engines: Iterable[Engine]) -> list[Finding]:
    """Each engine in its own process, all at once."""
    with tempfile.TemporaryDirectory(prefix="edgefl-") as folder, ThreadPoolExecutor() as pool:
        paths = {batch: Path(folder) / f"{i}.edgefl" for i, batch in enumerate(batches)}
        for batch, bundle in batches.items():
            bundle.save(paths[batch])
        jobs = [
            pool.submit(tried, engine, {batch: paths[batch] for batch in known}, kinds)
            for engine in engines
            for known, kinds in _by_batches(batches, engine).items()
        ]
        return [finding for job in jobs for finding in job.result()]


def _by_batches(batches: Mapping[str, Bundle], engine: Engine) -> dict[tuple[str, ...], list[str]]:
    """The artifacts that an engine runs, by the batches on which their results are known.

    Those of int8 files are kept with a bundle, and cannot be had for another batch without what made them.
    """
    first, *_ = batches
    kinds: dict[tuple[str, ...], list[str]] = {}
    for kind in _files(batches[first], engine):
        known = tuple(batch for batch, bundle in batches.items() if _is_known(bundle, engine.target, kind))
        kinds.setdefault(known or (first,), []).append(kind)
    return kinds


def _is_known(bundle: Bundle, target: str, kind: str) -> bool:
    return not kind.endswith("-int8") or stored_sketch(bundle, target, kind) is not None


def _files(bundle: Bundle, engine: Engine) -> list[str]:
    """The artifacts that an engine runs."""
    have = [a.kind for a in bundle.manifest.artifacts if a.target == engine.target]
    if engine.target == "ort-training":
        return ["training"] if "training" in have else []
    if engine.package == "openvino":
        # It takes the step that keeps channels last where there is one.
        have = [kind for kind in have if kind != "step-channels-last"]
    return have


def _kinks(bundle: Bundle, wrong: Sequence[Finding]) -> set[Finding]:
    """Those that are right where parameters and data are moved a little, this way and that."""
    left = set(wrong)
    for seed in range(1, _NUDGES + 1):
        if left:
            engines = [e for e in installed() if any(f.target == e.target for f in left)]
            found = _run({"beside it": _moved(bundle, seed)}, engines)
            right = {_place(f) for f in found if f.state == "right"}
            left = {f for f in left if _place(f) in right}
    return left


def _place(finding: Finding) -> tuple[str, ...]:
    return finding.engine, finding.delegate, finding.target, finding.kind


def _moved(bundle: Bundle, seed: int) -> Bundle:
    """The bundle with data and parameters beside the golden ones."""
    manifest = bundle.manifest
    labels = {head.label.name for head in manifest.heads}
    golden = nudged(bundle.golden(), {"weight", *labels}, _NUDGE, seed)
    fed = golden_feeds(bundle, "step" if manifest.find("onnx", "step") else "infer")
    names = [*(p.name for p in manifest.trained), *manifest.updated]
    values = nudged({name: fed[name] for name in names}, set(), _NUDGE, seed)
    return sketched(bundle.with_parameters(values, manifest.model_version).with_proof({}, golden))


def check(proof: Proof) -> None:
    """Raise NotProved where an engine that a file is written for does not compute it."""
    blocking = [finding for finding in proof.findings if finding.blocks]
    if not blocking:
        return
    first, others = blocking[0], len(blocking) - 1
    more = f", and {others} more like it" if others else ""
    raise NotProved(
        f"{first}{more}. Nothing is written: leave the target {first.target!r} out, freeze or rewrite the "
        "layer, or convert without proof (prove=False, --no-proof), and devices pass over that engine"
    )


def _rows(findings: Sequence[Finding]) -> Iterable[dict[str, Any]]:
    for place in dict.fromkeys((f.engine, f.delegate, f.target) for f in findings):
        own = [f for f in findings if (f.engine, f.delegate, f.target) == place]
        bad = {f.kind: f"{f.state}: {f.reason}" for f in own if f.state != "right"}
        yield {
            **dict(zip(("engine", "delegate", "target"), place, strict=True)),
            "right": [kind for kind in dict.fromkeys(f.kind for f in own) if kind not in bad],
            "not": bad,
        }
