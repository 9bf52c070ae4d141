# SPDX-License-Identifier: Apache-2.0
"""Several views of one memory, of which an interpreter without XNNPACK lets one be written over."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets import TFLiteModel, aliasing, to_tflite
from edgefl.converters.targets.aliasing import untangle
from edgefl.converters.targets.compact_tflite import compact_tflite
from edgefl.converters.targets.overwrites import overwrites, refuse_overwrites
from edgefl.converters.targets.quantize import int8_tflite
from edgefl.converters.weights import round_weights
from edgefl.errors import ConversionError
from edgefl.graph import Graph, TensorType, run

pytest.importorskip("tensorflow")

from tests.converters.conftest import KERNELS, Engine
from tests.converters.planner_oracle import plan_of
from tests.converters.tflite_tangles import read, tangle, untangled

F = np.dtype(np.float32)


def rotary() -> Graph:
    """What rotary position embeddings do: one view is scaled, another is taken apart."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (4, 8)))
    # An input's memory is never written over, that of what is made from it is.
    t = b.add("Add", b.add("Tanh", x), b.add("Sigmoid", x))
    heads = b.add("Reshape", t, b.constant(np.array((4, 2, 4))))
    scaled = b.add("Mul", heads, b.constant(np.arange(4, dtype=np.float32).reshape(1, 1, 4) + 1))
    rows = b.add("Reshape", t, b.constant(np.array((8, 4))))
    first = b.add("Slice", rows, *(b.constant(np.array([n])) for n in (0, 2, 1)))
    second = b.add("Slice", rows, *(b.constant(np.array([n])) for n in (2, 4, 1)))
    turned = b.add("Concat", b.add("Neg", second), first, axis=1)
    b.output("y", b.add("Add", scaled, b.add("Reshape", turned, b.constant(np.array((4, 2, 4))))))
    return b.build("rotary")


def int8(graph: Graph, signature: str) -> TFLiteModel:
    random = np.random.default_rng(3)
    return int8_tflite(
        graph, [{"x": random.normal(size=(4, 8)).astype(np.float32)} for _ in range(8)], signature
    )


@pytest.mark.parametrize("kernels", KERNELS)
def test_views_keep_their_values(engine: Engine, kernels: str) -> None:
    graph = rotary()
    feeds = {"x": np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)}

    found = engine(to_tflite(graph, "infer"), feeds, kernels)

    np.testing.assert_allclose(found["y"], run(graph, feeds)["y"], rtol=1e-5, atol=1e-5)


def test_rotary_embeddings_cost_no_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    mended = to_tflite(rotary(), "infer").operators
    monkeypatch.setattr("edgefl.converters.targets.flatbuffer.untangle", lambda model: 0)
    monkeypatch.setattr("edgefl.converters.targets.flatbuffer.refuse_overwrites", lambda model: None)

    assert mended == to_tflite(rotary(), "infer").operators


@pytest.mark.parametrize("write", [to_tflite, int8], ids=["float", "int8"])
def test_a_file_with_an_overwrite_is_refused(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl.converters.targets.flatbuffer.untangle", lambda model: 0)

    with pytest.raises(ConversionError, match=r"let operator \d+ \(MUL\) write over tensor \d+, whose"):
        write(rotary(), "infer")


def test_packed_weights_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (4, 64)))
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    b.output("y", b.add("MatMul", x, b.constant(weight)))
    written = to_tflite(round_weights(b.build("product"), 8), "infer")
    checked: list[Any] = []
    monkeypatch.setattr("edgefl.converters.targets.flatbuffer.refuse_overwrites", checked.append)

    packed = compact_tflite(written, 8)

    assert packed.operators["DEQUANTIZE"] == len(checked) == 1


def test_int8_views_keep_their_values(engine: Engine) -> None:
    graph = rotary()
    feeds = {"x": np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)}

    found = engine(int8(graph, "infer"), feeds, KERNELS[0])

    wanted = run(graph, feeds)["y"]
    # Six roundings to 256 levels each, of ranges no wider than eight times the largest output.
    np.testing.assert_allclose(found["y"], wanted, atol=6 * 8 * np.abs(wanted).max() / 256)


@pytest.mark.parametrize("seed", range(15))
def test_the_planner_shares_memory_by_the_rule(seed: int, engine: Engine) -> None:
    one = tangle(seed)
    plan = plan_of(read(one.model.data))
    owners = plan.owners()

    found = {(place, output) for place, _, output in engine.shared(one.model.data)}

    assert found == {(at, node.outputs[0]) for at, node in enumerate(plan.nodes) if node.outputs[0] in owners}


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_files_that_an_engine_computes_wrong_are_accused(first: int, engine: Engine) -> None:
    missed, wrong = [], 0
    for one in map(tangle, range(first, first + 20)):
        differs = [kernels for kernels in KERNELS if one.differs(engine(one.model, one.feeds, kernels))]
        wrong += bool(differs)
        missed += [differs] if differs and not overwrites(read(one.model.data)) else []

    assert not missed and wrong


@pytest.mark.parametrize("first", range(0, 40, 20))
@pytest.mark.parametrize("views", [True, False])
def test_mended_files_are_right_on_every_engine(
    first: int, views: bool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not views:  # copies instead
        monkeypatch.setattr(aliasing, "_share", lambda *_: False)
    for seed, kernels in itertools.product(range(first, first + 20), KERNELS):
        one = untangled(tangle(seed))
        assert not one.differs(engine(one.model, one.feeds, kernels)), (seed, kernels)


def check_offline(seeds: Iterator[int]) -> None:
    """Whatever part a delegate takes, nothing goes unaccused and nothing mended is read too late."""
    wrong = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        one = tangle(seed)
        model = read(one.model.data)
        accused = {one.writer for one in overwrites(model)}
        before = plan_of(model)
        untangle(model)
        refuse_overwrites(model)
        after = plan_of(model)
        for share in (0, 0.2, 0.5, 0.8):
            stale = before.delegated(_part(random, len(before.nodes), share)).stale()
            wrong += bool(stale)
            assert accused or not stale, (seed, stale)
            assert not after.delegated(_part(random, len(after.nodes), share)).stale(), seed
    assert wrong


def _part(random: np.random.Generator, nodes: int, share: float) -> set[int]:
    return set(np.flatnonzero(random.random(nodes) < share).tolist())


def test_random_files_under_random_delegates() -> None:
    check_offline(iter(range(1000, 1150)))


@pytest.mark.slow
def test_many_random_files_under_random_delegates() -> None:
    check_offline(iter(range(10_000, 13_000)))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2000, 3000, 250))
def test_many_files_on_every_engine(first: int, engine: Engine) -> None:
    for seed in range(first, first + 250):
        one = tangle(seed)
        accused = overwrites(read(one.model.data))
        mended = untangled(one)
        for kernels in KERNELS:
            assert accused or not one.differs(engine(one.model, one.feeds, kernels)), (seed, kernels)
            assert not mended.differs(engine(mended.model, mended.feeds, kernels)), (seed, kernels)
