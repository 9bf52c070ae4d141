# SPDX-License-Identifier: Apache-2.0
"""How far a converted model is from its framework: one step's gradients, and twenty steps of SGD.

Errors are norms: of the difference, relative to the reference, one parameter at a time. The gradient of some
parameters is nothing but rounding noise (a key's bias in attention, a bias before a normalisation), so the
reference's norm has a floor: `FLOOR` times the share that a parameter of that size would have of the norm of
the whole gradient. With 1e-4 allowed, float32 may be off by 1e-6 of that share there, as sums of terms that
cancel are. What the floor hides in float32 the second comparison shows: the same graph, run by the NumPy
interpreter with float64 tensors, with a floor a hundred times lower and a limit ten times lower. What is
left there is constants that exporters round to float32.

Twenty steps of plain SGD start from the same values and see the same batch. Each moves `LENGTH` at first:
longer steps leave the region in which networks with kinks amplify rounding less than a hundredfold.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters import convert
from edgefl.graph import Graph, read_onnx, run
from edgefl.graph.model import Node, TensorType
from edgefl.runtime import Trainer
from tests.models.reference import Reference, Values, reference
from tests.models.zoo import Array, Entry, alone

FLOOR, FLOOR_DOUBLE = 1e-2, 1e-4
GRADIENT, DOUBLE, TRAJECTORY = 1e-4, 1e-5, 1e-3
STEPS, BATCH, LENGTH = 20, 4, 0.01
NAN = float("nan")
_FLOAT, _DOUBLE = 1, 11  # ONNX element types


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        seconds: of processor time the conversion took.
        parameters: numbers trained.
        gradient: largest error of a parameter's gradient, float32 on onnxruntime.
        worst: that parameter.
        double: the same in float64 on the NumPy interpreter; NaN where it was not asked for.
        loss: relative error of the first loss.
        losses: largest relative error of the losses of twenty steps.
        moved: error of the change twenty steps make, all parameters together.
        moved_double: the same in float64, where float32 was out of bounds (then tiny if rounding was all).
        idle: parameters frozen because the loss does not depend on them.
    """

    seconds: float
    parameters: int
    gradient: float
    worst: str
    double: float
    loss: float
    losses: float
    moved: float
    moved_double: float
    idle: tuple[str, ...]


def measure(entry: Entry, *, double: bool = True, backend: str = "onnx") -> Outcome:
    """Convert an entry and compare it."""
    model = entry.build()
    started = time.process_time()
    bundle = converted(entry, model)
    seconds = time.process_time() - started
    return compare(entry, reference(entry, model), bundle, seconds, double=double, backend=backend)


def converted(entry: Entry, model: Any, targets: tuple[str, ...] = ("onnx",)) -> Bundle:
    return convert(
        model, entry.example_inputs(), loss=entry.loss, batch_size=BATCH, targets=targets, name=entry.name
    )


def compare(
    entry: Entry, truth: Reference, bundle: Bundle, seconds: float, *, double: bool, backend: str
) -> Outcome:
    batch = Batch(entry.data(BATCH), entry.labels(BATCH), bundle)
    trainer = Trainer(bundle, backend=backend)
    start = trainer.parameters()
    idle = tuple(sorted(truth.trainable - set(start)))
    values = {n: v for n, v in bundle.parameters().items() if n in truth.trainable}
    loss, wanted = truth.differentiate(values, batch.data, batch.y)
    got_loss, got = trainer.loss_and_gradients(batch.x, batch.y)
    errors = gradient_errors({**{n: np.zeros_like(values[n]) for n in idle}, **got}, wanted, FLOOR)
    worst = max(errors, key=lambda name: errors[name])
    lr = LENGTH / max(_norm(wanted), 1e-12)
    report = trainer.fit(batch.x, batch.y, epochs=STEPS, lr=lr)
    path, end = _descend(lambda now: truth.differentiate(now, batch.data, batch.y), start, lr)
    moved = _missed(trainer.parameters(), end, start)
    step = DoubleStep(bundle, batch)
    exact = step(start)[1] if double else {}
    scale = max(map(abs, path))
    return Outcome(
        seconds=seconds,
        parameters=sum(v.size for v in start.values()),
        gradient=errors[worst],
        worst=worst,
        double=max(gradient_errors(exact, {n: wanted[n] for n in exact}, FLOOR_DOUBLE).values(), default=NAN),
        loss=abs(got_loss - loss) / abs(loss),
        losses=max(abs(a - b) / scale for a, b in zip(report.losses, path, strict=True)),
        moved=moved,
        moved_double=_missed(_descend(step, start, lr)[1], end, start)
        if double and moved >= TRAJECTORY
        else NAN,
        idle=idle,
    )


def gradient_errors(got: Values, wanted: Values, floor: float) -> dict[str, float]:
    """Each parameter's error; see the module's docstring."""
    assert set(got) == set(wanted), set(got) ^ set(wanted)
    whole = _norm(wanted)
    count = sum(v.size for v in wanted.values())
    return {
        name: _distance(got[name], want)
        / max(float(np.linalg.norm(want)), floor * whole * float(np.sqrt(want.size / count)), 1e-300)
        for name, want in wanted.items()
    }


def _norm(values: Values) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(v, dtype=np.float64))) for v in values.values())))


def _distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(np.subtract(a, b, dtype=np.float64)))


@dataclass(frozen=True)
class Batch:
    """One batch: `data` by the model's names, `x` as the bundle's trainer takes it."""

    data: Values
    y: Array
    bundle: Bundle

    @property
    def x(self) -> Any:
        return alone(self.named)

    @property
    def named(self) -> dict[str, Array]:
        specs = self.bundle.manifest.inputs
        only = next(iter(self.data.values()))
        return {s.name: self.data.get(s.name, only).astype(s.dtype) for s in specs}


# -- twenty steps


def _descend(
    differentiate: Callable[[Values], tuple[float, Values]], start: Values, lr: float
) -> tuple[list[float], Values]:
    """The losses of plain SGD in float64, and where it ends."""
    values: Values = {n: v.astype(np.float64) for n, v in start.items()}
    losses = []
    for _ in range(STEPS):
        loss, found = differentiate(values)
        losses.append(loss)
        values = {n: v - lr * found[n] for n, v in values.items()}
    return losses, values


def _missed(got: Values, wanted: Values, start: Values) -> float:
    """How far off one end is, relative to the way to the other."""
    return _norm({n: got[n] - wanted[n] for n in wanted}) / _norm({n: wanted[n] - start[n] for n in wanted})


# -- float64


class DoubleStep:
    """The bundle's step with float64 where it has float32, on the NumPy interpreter."""

    def __init__(self, bundle: Bundle, batch: Batch) -> None:
        self.graph = in_double(read_onnx(bundle.artifact("onnx", "step")))
        self.feeds = {**batch.named, "y": batch.y, "weight": np.ones(len(batch.y))}

    def __call__(self, parameters: Values) -> tuple[float, dict[str, Array]]:
        feeds = {n: v.astype(self.graph.inputs[n].dtype) for n, v in {**self.feeds, **parameters}.items()}
        made = run(self.graph, feeds)
        return float(made["loss"]), {n: made[f"grad/{n}"] for n in parameters}


def in_double(graph: Graph) -> Graph:
    """The graph with float64 where it has float32."""
    return replace(
        graph,
        inputs={n: _wider(t) for n, t in graph.inputs.items()},
        outputs={n: _wider(t) for n, t in graph.outputs.items()},
        nodes=tuple(map(_double_node, graph.nodes)),
        constants={n: v.astype(_wider(TensorType.of(v)).dtype) for n, v in graph.constants.items()},
        types={n: _wider(t) for n, t in graph.types.items()},
    )


def _wider(type: TensorType) -> TensorType:
    return TensorType(np.dtype(np.float64), type.shape) if type.dtype == np.float32 else type


def _double_node(node: Node) -> Node:
    if node.op == "Cast" and node.attributes.get("to") == _FLOAT:
        return replace(node, attributes={**node.attributes, "to": _DOUBLE})
    return node
