# SPDX-License-Identifier: Apache-2.0
"""What a bundle carries to judge engines by: a golden batch, and sketches of what NumPy makes of it.

`proof.safetensors` holds `sketch/<kind>`, a row per output of a graph (see `edgefl.sketch`), and
`feed/<name>` for what the graphs were fed with that is neither in the golden batch nor a parameter's present
value: features of the golden batch, and parameters that have been replaced since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle, Manifest
from edgefl.bundle.bundle import FEED
from edgefl.errors import BackendUnavailable, ManifestError
from edgefl.graph import Interpreter, read_onnx
from edgefl.sketch import Sketch, decode, encode, loosened

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

KINDS = ("features", "step", "infer")
"""Graphs that NumPy gives the truth for, in the order a device runs them."""

_SKETCH = "sketch/"
_NUDGE = 2.0**-20
"""Relative; several times what float32 rounds away."""


def results(manifest: Manifest, kind: str) -> tuple[str, ...]:
    """The outputs of a graph by contract name, in the order of a sketch's rows."""
    if kind.startswith("step"):
        gradients = (f"grad/{p.name}" for p in manifest.trained)
        return ("loss", *gradients, *(f"buffer/{name}" for name in manifest.updated))
    if kind.startswith("features"):
        given = {spec.name for spec in manifest.inputs}
        return tuple(spec.name for spec in manifest.step_inputs if spec.name not in given)
    return tuple(head.output.name for head in manifest.heads)


def golden_feeds(bundle: Bundle, kind: str) -> dict[str, Array]:
    """What a graph takes, by contract name, for the results that the bundle's sketch describes.

    `infer-int8`, whose parameters are inside, is given the batch: it may want one example only.

    Raises:
        BackendUnavailable: the bundle lacks something the graph takes.
    """
    manifest, proof = bundle.manifest, bundle.proof()
    replaced = {n.removeprefix(FEED): v for n, v in proof.items() if n.startswith(FEED)}
    known = {**bundle.parameters(), **bundle.golden(), **replaced}
    wanted = _taken(manifest, kind)
    if missing := [name for name in wanted if name not in known]:
        raise BackendUnavailable(
            f"bundle {manifest.name!r} has no golden {', '.join(missing)} to try {kind} with"
        )
    return {name: known[name] for name in wanted}


def stored_sketch(bundle: Bundle, target: str, kind: str) -> Sketch | None:
    """What the bundle says of a graph's results on `golden_feeds`; None where it says nothing.

    Raises:
        ManifestError: what it says does not fit the graph.
    """
    table = bundle.proof().get(_key(target, kind))
    if table is None:
        return None
    try:
        return decode(table, results(bundle.manifest, kind))
    except ValueError as exc:
        raise ManifestError(f"proof of {kind} in bundle {bundle.manifest.name!r}: {exc}") from exc


def with_sketch(bundle: Bundle, target: str, kind: str, rows: Sketch) -> Bundle:
    """The bundle with the results of one more graph described."""
    table = encode(rows, results(bundle.manifest, kind))
    return bundle.with_proof({**bundle.proof(), _key(target, kind): table})


def renewed(bundle: Bundle) -> Bundle:
    """A bundle that has a proof with that of its present parameters, which takes fewer bytes than keeping the
    old ones; without ONNX graphs, or a proof, it stays as it is."""
    return sketched(bundle) if bundle.proof() else bundle


def sketched(bundle: Bundle) -> Bundle:
    """The bundle with the proof of its present parameters, made by NumPy from its ONNX graphs.

    Without ONNX graphs it stays as it is: its proof, if any, holds the parameters it was made with.
    """
    if not any(bundle.manifest.find("onnx", kind) for kind in KINDS):
        return bundle
    kept = {n: v for n, v in bundle.proof().items() if n.endswith("-int8")}
    made = bundle.with_proof(kept)
    for kind in KINDS:
        if bundle.manifest.find("onnx", kind) is None:
            continue
        interpreter = Interpreter(read_onnx(bundle.artifact("onnx", kind)))
        feeds = golden_feeds(made, kind)
        values = interpreter(feeds)
        rows = loosened(values, interpreter(nudged(feeds, _taken_as_it_is(made.manifest))))
        made = with_sketch(made, "onnx", kind, rows)
        if kind == "features":
            made = made.with_proof({**made.proof(), **{FEED + name: v for name, v in values.items()}})
    return made


def nudged(feeds: Feeds, fixed: set[str], size: float = _NUDGE, seed: int = 0) -> dict[str, Array]:
    """Feeds whose floating-point values, but for the fixed ones, are moved by a relative size up or down."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return {
        name: value
        if name in fixed or value.dtype.kind != "f"
        else (value * (1 + size * rng.choice([-1.0, 1.0], value.shape))).astype(value.dtype)
        for name, value in feeds.items()
    }


def _taken_as_it_is(manifest: Manifest) -> set[str]:
    return {"weight", *(head.label.name for head in manifest.heads)}


def _taken(manifest: Manifest, kind: str) -> tuple[str, ...]:
    inputs = tuple(spec.name for spec in manifest.inputs)
    if kind.startswith("features") or kind == "infer-int8":
        return inputs
    values = (*(p.name for p in manifest.trained), *manifest.updated)
    if kind.startswith("infer"):
        return (*inputs, *values)
    labels = tuple(head.label.name for head in manifest.heads)
    seed = ("seed",) if manifest.seeded else ()
    return (*(spec.name for spec in manifest.step_inputs), *labels, "weight", *seed, *values)


def _key(target: str, kind: str) -> str:
    """Quantizers differ by target; all else is the same graph."""
    return f"{_SKETCH}{target}/{kind}" if kind.endswith("-int8") else _SKETCH + kind.partition("-")[0]
