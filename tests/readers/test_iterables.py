# SPDX-License-Identifier: Apache-2.0
"""Data sets of frameworks, generators, arrays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgefl.data import Examples
from edgefl.errors import DataError, DataShape
from edgefl.options import DataOptions
from edgefl.readers import read
from tests.readers.conftest import model

LABELS = np.arange(12) % 3


def same(found: Examples, numbers: np.ndarray) -> None:
    np.testing.assert_array_equal(found.x, numbers)
    np.testing.assert_array_equal(found.y, LABELS)


@pytest.mark.device
def test_arrays_and_pairs(numbers: np.ndarray) -> None:
    same(read((numbers, LABELS)), numbers)
    same(read({"x": numbers, "y": LABELS}), numbers)
    same(read(Examples(numbers, LABELS)), numbers)
    same(read(zip(numbers, LABELS, strict=True), model(3)), numbers)
    same(read([(numbers[:5], LABELS[:5]), (numbers[5:], LABELS[5:])], model(3)), numbers)
    same(read([{"acc": x, "label": y} for x, y in zip(numbers, LABELS, strict=True)], model(3)), numbers)


@pytest.mark.device
def test_weights_and_several_inputs(numbers: np.ndarray) -> None:
    found = read([({"a": x, "b": x * 2}, y, 0.5) for x, y in zip(numbers, LABELS, strict=True)])

    np.testing.assert_array_equal(found.x["b"], numbers * 2)
    assert found.weight.tolist() == [0.5] * 12


@pytest.mark.device
def test_what_is_no_data_set(numbers: np.ndarray) -> None:
    with pytest.raises(DataError, match="int holds no examples"):
        read(3)
    with pytest.raises(DataError, match="gives no examples"):
        read([])
    with pytest.raises(DataError, match="item 1 is int, expected"):
        read([(numbers[0], 0), 7])
    with pytest.raises(DataError, match="or no end of them"):
        read(((numbers[0], 0) for _ in itertools.count()), max_bytes=1000)
    with pytest.raises(DataShape, match="different shapes"):
        read([(numbers[0], 0), (numbers[0][:2], 1)])
    with pytest.raises(DataShape, match="item 0, 'x' has 3 axes; the model wants 1 for"):
        read([(numbers[None], 0)], model(3))
    with pytest.raises(DataError, match="item 0, 'y': <U3 values are no numbers"):
        read([(numbers[0], "cat")])
    with pytest.raises(DataError, match="have no labels"):
        read({"x": numbers})


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_a_torch_loader(numbers: np.ndarray, batch: int | None) -> None:
    import torch

    pairs = torch.utils.data.TensorDataset(torch.from_numpy(numbers), torch.from_numpy(LABELS))
    loader = torch.utils.data.DataLoader(pairs, batch_size=batch)

    same(read(loader, model(3)), numbers)
    same(read(loader), numbers)


@pytest.mark.parametrize("batched", [False, True])
def test_tf_data(numbers: np.ndarray, batched: bool) -> None:
    import tensorflow as tf

    source = tf.data.Dataset.from_tensor_slices((numbers, LABELS))

    same(read(source.batch(5) if batched else source, model(3)), numbers)


class HuggingFace:
    """What a reader sees of a `datasets.Dataset`, whose releases want other packages than ours."""

    column_names = ("acc", "label", "id")

    def __init__(self, rows: list[dict[str, object]], arrays: bool = False) -> None:
        self._rows, self._arrays = rows, arrays

    def with_format(self, form: str) -> HuggingFace:
        return HuggingFace(self._rows, form == "numpy")

    def __iter__(self):
        assert self._arrays
        return iter({name: np.asarray(value) for name, value in row.items()} for row in self._rows)


@pytest.mark.device
def test_a_hugging_face_data_set(numbers: np.ndarray) -> None:
    pairs = zip(numbers, LABELS, strict=True)
    source = HuggingFace([{"acc": x.tolist(), "label": int(y), "id": i} for i, (x, y) in enumerate(pairs)])

    found = read(source, model(3), DataOptions(columns="acc"))

    np.testing.assert_allclose(found.x, numbers, rtol=1e-7)
    assert found.y.tolist() == LABELS.tolist()
