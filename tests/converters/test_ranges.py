# SPDX-License-Identifier: Apache-2.0
"""What is looked up must be there: the same answer on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.ranges import index_limits
from edgefl.errors import IndexRange
from edgefl.graph import read_onnx
from edgefl.runtime import BACKENDS

torch = pytest.importorskip("torch")


FIXTURES = Path(__file__).parents[1] / "fixtures"


class Lookup(torch.nn.Module):
    """Rows of a table, found by what `path` makes of the input."""

    def __init__(self, path: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.path = torch.nn.Embedding(11, 4), path
        self.last = torch.nn.Linear(20, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.table(self.path(x)).flatten(1))


def converted(path: Any) -> Bundle:
    return edgefl.convert(
        Lookup(path), np.zeros((1, 5), np.int64), batch_size=2, targets=("onnx",), prove=False
    )


@pytest.mark.parametrize(
    ("path", "below"),
    [
        (lambda x: x, 11),
        (lambda x: x.to(torch.int32).reshape(-1, 5), 11),
        (lambda x: x + 2, 9),
        (lambda x: x % 11, 0),
        (lambda x: x.clamp(0, 10), 0),
    ],
    ids=["as it is", "reshaped", "shifted", "around", "clipped"],
)
def test_the_range_of_an_index(path: Any, below: int) -> None:
    bundle = converted(path)

    assert [spec.below for spec in bundle.manifest.inputs] == [below]
    assert Bundle.open(bundle.to_bytes()).manifest == bundle.manifest


def test_the_smallest_table_decides() -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Embedding(11, 4), torch.nn.Parameter(torch.ones(7, 4))

        def forward(self, x: Any) -> Any:
            return (self.a(x) + self.b[x]).sum(1)

    bundle = edgefl.convert(Both(), np.zeros((1, 5), np.int64), batch_size=2, targets=("onnx",), prove=False)

    assert bundle.manifest.inputs[0].below == 7


def test_a_keras_embedding_refuses_negative_numbers_too() -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(11, 4), layers.Flatten(), layers.Dense(3)]
    )

    assert edgefl.convert(model, batch_size=2, targets=("onnx",), prove=False).manifest.inputs[0].below == 11


def test_numbers_that_are_no_indices_have_no_range(bundle: Bundle) -> None:
    graph = read_onnx(bundle.artifact("onnx", "infer"))

    assert index_limits(graph) == {"x": 11}
    assert index_limits(read_onnx(Bundle.open(FIXTURES / "mlp.edgefl").artifact("onnx", "infer"))) == {}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return edgefl.convert(Lookup(lambda x: x), np.zeros((1, 5), np.int64), batch_size=2)


@pytest.mark.parametrize("engine", BACKENDS)
@pytest.mark.parametrize("bad", [-1, 11, 2**31 + 5])
def test_an_index_outside_is_refused_on_every_engine(bundle: Bundle, engine: str, bad: int) -> None:
    x = np.random.default_rng(0).integers(0, 11, (6, 5))
    trainer = edgefl.Trainer(bundle, engine)
    trainer.fit(x, np.zeros(6, np.int32))
    x[4, 2] = bad

    for use in (trainer.predict, lambda x: trainer.fit(x, np.zeros(6, np.int32))):
        with pytest.raises(IndexRange, match=rf"'x' holds {bad} at \(4, 2\), allowed 0 to 10"):
            use(x)


def test_the_golden_batch_uses_the_whole_range(bundle: Bundle) -> None:
    golden = bundle.golden()["x"]

    assert golden.min() >= 0 and 1 < golden.max() < 11
