# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet: one example per row, columns named by the first one."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.data import Examples, Wanted
from edgefl.errors import DataError, DataType, MissingDependency
from edgefl.options import DataOptions
from edgefl.readers.classes import class_names, numbered

Array = npt.NDArray[Any]
Column = Sequence[Any]
"""Text as a CSV file has it, or numbers."""

LABELS = ("y", "label")
"""Columns that hold labels where none is named."""


def read_table(
    path: Path, wanted: Wanted | None, how: DataOptions, labelled: bool, max_bytes: int
) -> Examples:
    """Examples of a table; errors as for `edgefl.readers.read`."""
    parquet = path.suffix.lower() == ".parquet"
    columns, lines = _parquet(path, max_bytes) if parquet else _csv(path, max_bytes)
    table = _Table(path, columns, lines)
    labels = _labels(table, how, labelled)
    taken = {name for names in labels.values() for name in names} | {how.weight_column or ""}
    inputs = _inputs(table, how, taken, wanted)
    y: Any = {name: table.labels(columns, wanted, how) for name, columns in labels.items()}
    weight = table.numbers(how.weight_column) if how.weight_column else None
    x = {name: _shaped(table.together(names), name, wanted) for name, names in inputs.items()}
    return Examples(x if [*x] != ["x"] else x["x"], y.get("y", y) if y else None, weight)


class _Table:
    """Columns of a file, and on which of its lines each row stands."""

    def __init__(self, path: Path, columns: Mapping[str, Column], lines: Sequence[int]) -> None:
        self.path, self.columns, self._lines = path, columns, lines
        if not lines:
            raise DataError(f"{path} has no rows")

    def numbers(self, name: str) -> Array:
        """A column as float64 `[rows]`; an array of integers stays one."""
        values = self._column(name)
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
            return values
        made = np.empty(len(values))
        for i, value in enumerate(values):
            try:
                made[i] = float(value)
            except (TypeError, ValueError) as exc:
                raise DataType(f"{self.place(i, name)}: {value!r} is no number") from exc
        return made

    def together(self, names: Sequence[str]) -> Array:
        """Columns side by side, `[rows, columns]`; columns that hold lists of numbers, one such column."""
        if len(names) == 1 and isinstance(self._column(names[0])[0], list | np.ndarray):
            values = self._column(names[0])
            try:
                return np.asarray([np.asarray(value, np.float64) for value in values])
            except (TypeError, ValueError) as exc:
                raise DataType(f"{self.path}, column {names[0]!r}: lists of different shapes") from exc
        return np.stack([self.numbers(name) for name in names], axis=1)

    def labels(self, names: Sequence[str], wanted: Wanted | None, how: DataOptions) -> Array:
        """Numbers, `[rows]` or of several columns `[rows, columns]`; names of classes as numbers."""
        name, *others = names
        if others:
            return self.together(names)
        values = self._column(name)
        if how.classes is None and all(_is_number(value) for value in values):
            return self.numbers(name)
        texts = [str(value) for value in values]
        where = f"{self.path}, column {name!r}"
        places = [self.place(i, name) for i in range(len(texts))]
        return numbered(texts, class_names(texts, how.classes, wanted, where), places)

    def place(self, row: int, name: str) -> str:
        """Where a value stands, for people."""
        return f"{self.path}, row {self._lines[row]}, column {name!r}"

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            raise DataError(f"{self.path} has no column {name!r}; those are {', '.join(self.columns)}")
        return self.columns[name]


def _labels(table: _Table, how: DataOptions, labelled: bool) -> dict[str, list[str]]:
    """Columns of labels by label."""
    if how.label_column is not None:
        return _mapping(how.label_column, "y")
    found = next((name for name in LABELS if name in table.columns), None)
    if found is not None:
        return {"y": [found]}
    if labelled:
        raise DataError(
            f"{table.path} has columns {', '.join(table.columns)}: say which holds the labels, `label_column`"
        )
    return {}


def _inputs(table: _Table, how: DataOptions, taken: set[str], wanted: Wanted | None) -> dict[str, list[str]]:
    """Columns of inputs by input: those named, else all that are left."""
    first = wanted.inputs[0].name if wanted is not None else "x"
    if how.columns is None:
        return {first: [name for name in table.columns if name not in taken]}
    chosen = {}
    for name, patterns in _mapping(how.columns, first).items():
        chosen[name] = [
            column for pattern in patterns for column in _matching(table, pattern) if column not in taken
        ]
    return chosen


def _matching(table: _Table, pattern: str) -> list[str]:
    found = [name for name in table.columns if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise DataError(f"{table.path} has no column {pattern!r}; those are {', '.join(table.columns)}")
    return found


def _mapping(text: str, only: str) -> dict[str, list[str]]:
    """`a,b,c`, or `input=a,b;other=c`."""
    made = {}
    for part in text.split(";"):
        name, equals, names = part.rpartition("=")
        made[name.strip() if equals else only] = [each.strip() for each in names.split(",")]
    return made


def _shaped(values: Array, name: str, wanted: Wanted | None) -> Array:
    """Rows in the shape of an example, where they have as many numbers."""
    spec = next((s for s in wanted.inputs if s.name == name), None) if wanted is not None else None
    if spec is not None and values[0].size == int(np.prod(spec.example_shape)):
        return values.reshape(len(values), *spec.example_shape)
    return values


def _csv(path: Path, max_bytes: int) -> tuple[dict[str, Column], list[int]]:
    try:
        if path.stat().st_size > max_bytes:
            raise DataError(f"{path} has {path.stat().st_size} bytes, allowed {max_bytes}")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            names = [name.strip() for name in next(reader, [])]
            rows, lines = list[list[str]](), list[int]()
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise DataError(f"{path}, row {reader.line_num}: {len(row)} values, {len(names)} columns")
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, csv.Error, UnicodeDecodeError) as exc:
        raise DataError(f"cannot read examples from {path}: {exc}") from exc
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"{path} has several columns called {', '.join(doubled)}")
    return dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}, lines


def _parquet(path: Path, max_bytes: int) -> tuple[dict[str, Column], list[int]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingDependency("pyarrow", "data", f"reading {path}") from exc
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as exc:
        raise DataError(f"cannot read examples from {path}: {exc}") from exc
    if table.nbytes > max_bytes:
        raise DataError(f"{path} has {table.nbytes} bytes, allowed {max_bytes}")
    columns: dict[str, Column] = {}
    for name in table.column_names:
        column = table.column(name)
        numeric = pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)
        columns[name] = column.to_numpy() if numeric and not column.null_count else column.to_pylist()
    return columns, list(range(1, table.num_rows + 1))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
