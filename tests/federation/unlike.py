# SPDX-License-Identifier: Apache-2.0
"""Devices whose data are unlike each other, their gradients by hand, and federations of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.parameters import Vector
from edgefl.runtime import Trainer
from edgefl.runtime.update import encode_update
from edgefl.simulation import Plan, simulate
from edgefl.wire import Training
from tests.fixtures.make import examples

FIXTURES = Path(__file__).parents[1] / "fixtures"
MLP, HEAD = (Bundle.open(FIXTURES / f"{name}.edgefl") for name in ("mlp", "head"))
LR, STEPS = 0.2, 5
PLAIN = {"mode": "float32", "lr": LR, "epochs": STEPS}
Gradient = Callable[[str, Vector], Vector]


def start(bundle: Bundle) -> Vector:
    """The parameters a federation begins with, flat."""
    values = bundle.parameters()
    return bundle.schema().flatten({p.name: values[p.name] for p in bundle.schema().parameters})


def skewed(count: int = 4) -> dict[str, Examples]:
    """Eight examples each, one batch, of mostly one class."""
    made = {}
    for i in range(count):
        x, y = examples(200, i)
        order = np.argsort(y != i % 3, kind="stable")[[0, 1, 2, 3, 4, 5, -1, -2]]
        made[f"d{i}"] = Examples(x[order], y[order])
    return made


def gradient(devices: Mapping[str, Examples]) -> Gradient:
    """Of softmax cross-entropy behind one layer of tanh, by hand, in float64."""
    schema = MLP.schema()

    def of(name: str, flat: Vector) -> Vector:
        p, at = {}, 0
        for one in schema.parameters:
            p[one.name] = flat[at : at + one.size].reshape(one.shape)
            at += one.size
        x, y = np.asarray(devices[name].x, np.float64), np.asarray(devices[name].y)
        h = np.tanh(x @ p["hidden/kernel"] + p["hidden/bias"])
        z = h @ p["head/kernel"] + p["head/bias"]
        q = np.exp(z - z.max(axis=1, keepdims=True))
        dz = (q / q.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(y)
        da = (dz @ p["head/kernel"].T) * (1 - h * h)
        found = {
            "hidden/kernel": x.T @ da,
            "hidden/bias": da.sum(axis=0),
            "head/kernel": h.T @ dz,
            "head/bias": dz.sum(axis=0),
        }
        return np.concatenate([found[one.name].ravel() for one in schema.parameters])

    return of


def run(
    bundle: Bundle, devices: Mapping[str, Examples], **options: Any
) -> tuple[list[Vector], list[list[str]]]:
    """Flat parameters of every version, and who took part."""
    versions, cohorts = list[Vector](), dict[int, list[str]]()
    plan = {"rounds": options.pop("rounds", 6), "cohort": options.pop("cohort", None), "downlink": 0.0}
    plan |= {"norm_bound": 0.0, "server_lr": options.pop("server_lr", 1.0)}

    def code(*arguments: Any, **given: Any) -> Any:
        cohorts.setdefault(given["base_version"], []).append(given["device"])
        return encode_update(*arguments, **given)

    simulate(
        bundle,
        devices,
        Plan(training=Training.of(**{**PLAIN, **options}), **plan),
        backend="numpy",
        code=code,
        on_round=lambda row, values: versions.append(bundle.schema().flatten(values)),
    )
    return versions, [cohorts[base] for base in sorted(cohorts)]


def slope(bundle: Bundle, devices: Mapping[str, Examples], **options: Any) -> float:
    """How far the last version is from where the gradients of all devices together are zero."""
    versions, _ = run(bundle, devices, **options)
    trainer = Trainer(bundle, "numpy")
    trainer.load_parameters(bundle.schema().unflatten(versions[-1]))
    found = [trainer.loss_and_gradients(e.x, e.y)[1] for e in devices.values()]
    return float(sum(np.linalg.norm(sum(g[name] for g in found)) for name in found[0]))
