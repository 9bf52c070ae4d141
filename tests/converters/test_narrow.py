# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize import simplify
from edgefl.converters.normalize.narrow import narrow
from edgefl.graph import Graph, run
from edgefl.graph.model import TensorType

FLOAT = np.dtype(np.float32)


def graph_of(make: Callable[..., Expr], *shapes: tuple[int, ...]) -> Graph:
    b = GraphBuilder()
    inputs = [Expr(b, b.input(f"in{i}", TensorType(FLOAT, shape))) for i, shape in enumerate(shapes)]
    b.output("y", make(*inputs).name)
    return b.build()


def largest(graph: Graph, operator: str) -> int:
    """Elements of the largest output of an operator."""
    return max(graph.type_of(node.outputs[0]).size for node in graph if node.op == operator)


def check(graph: Graph) -> Graph:
    """The narrowed graph gives the same values, but for the order in which a BLAS kernel adds.

    Attention scores of up to 30 come from 9 additions and may be 30 * 9 * 2^-24 off, which Softmax makes a
    relative error.
    """
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in graph.inputs.items()}
    made = narrow(graph)
    np.testing.assert_allclose(run(made, feeds)["y"], run(graph, feeds)["y"], rtol=2e-5, atol=2e-5)
    return made


def first(x: Expr) -> Expr:
    return x.slice(1, 0, 1)


def test_products_of_rows_that_nobody_reads_are_left_out() -> None:
    made = check(graph_of(lambda x, w: first((x @ w).sigmoid()), (2, 8, 4), (4, 5)))

    assert largest(made, "MatMul") == 2 * 1 * 5


def test_a_normalisation_is_narrowed_through_its_statistics() -> None:
    def norm(x: Expr) -> Expr:
        centred = x - x.sum([2], keepdims=True) / 4.0
        return first(centred / ((centred * centred).sum([2], keepdims=True) + 1.0).sqrt())

    made = check(graph_of(norm, (2, 8, 4)))

    assert largest(made, "Div") == 2 * 4


def test_attention_keeps_all_keys_and_one_query() -> None:
    def attention(x: Expr, q: Expr, k: Expr) -> Expr:
        heads = [(x @ w).reshape((2, 8, 2, 3)).transpose(0, 2, 1, 3) for w in (q, k)]
        shares = (heads[0] @ heads[1].swap_last()).apply("Softmax", axis=3)
        return first((shares @ heads[1]).transpose(0, 2, 1, 3).reshape((2, 8, 6)) + x)

    made = check(graph_of(attention, (2, 8, 6), (6, 6), (6, 6)))

    assert largest(made, "Softmax") == 2 * 2 * 1 * 8
    assert sorted(made.type_of(n.outputs[0]).size for n in made if n.op == "MatMul") == [12, 12, 32, 96]


def test_what_is_read_twice_in_different_places_stays_whole() -> None:
    made = check(graph_of(lambda x: first(x.exp()) + x.exp().slice(1, 3, 4), (2, 8)))

    assert largest(made, "Exp") == 16


def test_an_output_stays_whole() -> None:
    def make(x: Expr) -> Expr:
        y = x.exp()
        y.builder.output("all", y.name)
        return first(y)

    assert largest(check(graph_of(make, (2, 8))), "Exp") == 16


def test_a_softmax_over_the_axis_stays_whole() -> None:
    made = check(graph_of(lambda x: first(x.apply("Softmax", axis=1)), (2, 8)))

    assert largest(made, "Softmax") == 16


def test_a_broadcast_operand_stays_as_it_is() -> None:
    made = check(graph_of(lambda x, y: first(x * y), (2, 8, 3), (2, 1, 3)))

    assert largest(made, "Mul") == 6


OPERATIONS: dict[str, Callable[[Expr], Expr]] = {
    "exp": lambda x: x.exp(),
    "add": lambda x: x + x.constant(np.arange(x.shape[-1], dtype=np.float32)),
    "rows": lambda x: x * x.sum([x.rank - 1], keepdims=True),
    "softmax": lambda x: x.apply("Softmax", axis=x.rank - 1),
    "turn": lambda x: x.transpose(*reversed(range(x.rank))),
    "swap": lambda x: x.swap_last(),
    "flat": lambda x: x.reshape((x.shape[0], -1)),
    "split": lambda x: x.reshape((*x.shape[:-1], 2, x.shape[-1] // 2)) if x.shape[-1] % 2 == 0 else x,
    "product": lambda x: x @ x.constant(np.ones((x.shape[-1], 2), np.float32)) if x.rank > 1 else x,
    "square": lambda x: x @ x.swap_last() if x.rank > 1 else x,
    "total": lambda x: x.sum([0]) if x.rank > 2 else x,
    "max": lambda x: x.apply("ReduceMax", x.constant(np.array([x.rank - 1]), np.int64), keepdims=1),
    "residual": lambda x: x + x.sigmoid(),
}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=6), st.data())
def test_values_stay_in_any_chain(names: list[str], data: st.DataObject) -> None:
    def make(x: Expr) -> Expr:
        for name in names:
            if x.rank < 5:
                x = OPERATIONS[name](x)
        axis = data.draw(st.integers(0, x.rank - 1))
        start = data.draw(st.integers(0, x.shape[axis] - 1))
        return x.slice(axis, start, data.draw(st.integers(start + 1, x.shape[axis])))

    with np.errstate(all="ignore"):
        graph = graph_of(make, (2, 3, 4))
        feeds = {"in0": np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 4)).astype(np.float32)}
        expected, made = run(graph, feeds)["y"], run(simplify(narrow(graph)), feeds)["y"]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_a_graph_without_slices_is_left_alone() -> None:
    graph = graph_of(lambda x: x.exp(), (2, 8))

    assert narrow(graph) is graph


@pytest.mark.parametrize("start", [0, 5])
def test_two_readers_of_the_same_range_share_it(start: int) -> None:
    def make(x: Expr) -> Expr:
        y = x.exp()
        part = y.slice(1, start, start + 2)
        return part.sigmoid() + part

    assert largest(check(graph_of(make, (2, 8))), "Exp") == 4
