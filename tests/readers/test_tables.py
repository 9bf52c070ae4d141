# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet against what wrote them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl.data import check_examples
from edgefl.errors import DataError, DataType, LabelRange, MissingDependency
from edgefl.options import DataOptions
from edgefl.readers import read
from tests.readers.conftest import model

NAMES = ["ant", "bee", "cat"]


def write(path: Path, header: list[str], rows: list[list[object]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


@pytest.fixture
def table(tmp_path: Path, numbers: np.ndarray) -> Path:
    rows = [[*map(repr, map(float, row)), NAMES[i % 3], i + 1] for i, row in enumerate(numbers)]
    return write(tmp_path / "t.csv", ["a", "b", "c", "animal", "times"], rows)


@pytest.mark.device
def test_all_columns_but_the_label(table: Path, numbers: np.ndarray) -> None:
    found = read(table, model(3), DataOptions(label_column="animal", weight_column="times"))

    inputs, labels = check_examples(found.x, found.y, model(3))
    np.testing.assert_array_equal(inputs["x"], numbers)
    assert labels["y"].tolist() == [0, 1, 2] * 4 and found.weight.tolist() == list(range(1, 13))


@pytest.mark.device
def test_columns_by_name_pattern_and_input(table: Path, numbers: np.ndarray) -> None:
    picked = read(table, None, DataOptions(columns="c,a", label_column="times"))
    both = read(table, None, DataOptions(columns="left=[ab];right=c", label_column="times"))

    np.testing.assert_allclose(picked.x, numbers[:, [2, 0]], rtol=1e-6)
    assert {n: v.shape for n, v in both.x.items()} == {"left": (12, 2), "right": (12, 1)}


@pytest.mark.device
def test_the_shape_of_the_model(table: Path) -> None:
    assert read(table, model(3, 1), DataOptions(label_column="times", columns="a,b,c")).x.shape == (12, 3, 1)


@pytest.mark.device
def test_classes_have_one_order(table: Path, tmp_path: Path) -> None:
    named = DataOptions(label_column="animal", classes="cat, bee,ant,dog", columns="a,b,c")
    few = write(tmp_path / "few.csv", ["a", "b", "c", "label"], [[1, 2, 3, "bee"], [1, 2, 3, "cat"]])

    assert read(table, model(3, classes=4), named).y.tolist() == [2, 1, 0] * 4
    with pytest.raises(DataError, match=r"'label' has 2 classes \(bee, cat\), the model 3: name all of them"):
        read(few, model(3))
    with pytest.raises(LabelRange, match=r"few.csv, row 3, column 'label': 'cat' is no class; those are bee"):
        read(few, model(3), DataOptions(classes="bee,ant"))


@pytest.mark.device
@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        ([[1, 2, 0], [1, "n/a", 0]], DataType, r"t.csv, row 3, column 'b': 'n/a' is no number"),
        ([[1, 2, 0], [1, 2]], DataError, "t.csv, row 3: 2 values, 3 columns"),
        ([], DataError, "has no rows"),
    ],
)
def test_what_is_wrong_says_where(tmp_path: Path, rows, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read(write(tmp_path / "t.csv", ["a", "b", "y"], rows), model(2))


@pytest.mark.device
def test_columns_that_are_missing_or_doubled(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="say which holds the labels, `label_column`"):
        read(table, model(3))
    with pytest.raises(DataError, match="has no column 'z'; those are a, b, c, animal, times"):
        read(table, model(3), DataOptions(columns="a,z", label_column="animal"))
    with pytest.raises(DataError, match="several columns called a"):
        read(write(tmp_path / "d.csv", ["a", "a", "y"], [[1, 2, 0]]), model(2))
    with pytest.raises(DataError, match="cannot read examples from"):
        read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="bytes, allowed 10"):
        read(table, max_bytes=10)


@pytest.mark.device
def test_tabs_and_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", ["a", "y"], [[255, 0], [0, 1]], "\t")

    assert read(path, how=DataOptions(scale=1 / 255, offset=-0.5)).x.tolist() == [[0.5], [-0.5]]


def test_parquet_as_pandas_writes_it(tmp_path: Path, numbers: np.ndarray) -> None:
    import pandas

    frame = pandas.DataFrame(numbers, columns=list("abc"))
    frame["label"] = [NAMES[i % 3] for i in range(12)]
    frame["all"] = list(numbers.astype(np.float64))
    frame.to_parquet(tmp_path / "t.parquet")

    found = read(tmp_path / "t.parquet", model(3), DataOptions(columns="a,b,c"))
    lists = read(tmp_path / "t.parquet", model(3), DataOptions(columns="all"))

    np.testing.assert_array_equal(found.x, numbers)
    np.testing.assert_array_equal(lists.x, numbers)
    assert found.y.tolist() == [0, 1, 2] * 4


def test_parquet_with_gaps_says_where(tmp_path: Path) -> None:
    import pandas

    pandas.DataFrame({"a": [1.0, None], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "no.parquet").write_text("text")

    with pytest.raises(DataType, match=r"t.parquet, row 2, column 'a': None is no number"):
        read(tmp_path / "t.parquet", model(1))
    with pytest.raises(DataError, match="cannot read examples from"):
        read(tmp_path / "no.parquet", model(1))


@pytest.mark.device
def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingDependency, match="needs the package 'pyarrow'"):
        read(tmp_path / "t.parquet")
