# SPDX-License-Identifier: Apache-2.0
"""Training examples: read from `.npz` files, and checked against what a model wants before anything runs."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle.manifest import Head, TensorSpec
from edgefl.errors import (
    DataError,
    DataShape,
    DataType,
    IndexRange,
    LabelRange,
    ManifestError,
    NotFinite,
    OptionError,
)

MAX_DATA_BYTES = 8 << 30
MAX_ARRAYS = 64

CLASS_LOSSES = ("softmax_cross_entropy", "next_token")
"""Losses whose labels are class numbers."""

IGNORED = -100
"""The class number of labels that do not count, where an example has several and the loss names no other."""

Array = npt.NDArray[Any]
Inputs = Array | Mapping[str, Array]
"""Examples along the first dimension: one array, or arrays by name where a model has several inputs."""
Labels = Array | Mapping[str, Array]
"""Labels along the first dimension: one array, or arrays by output where several outputs are trained."""


class Wanted(Protocol):
    """What a model's examples are made of; its manifest says so."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def heads(self) -> tuple[Head, ...]: ...


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples, all with the examples along the first dimension.

    Attributes:
        x: the inputs.
        y: `Labels`; None where examples without labels were asked for.
        weight: how much each example counts, `[examples]`; all the same where None.
    """

    x: Inputs
    y: Any
    weight: Array | None = None

    def __len__(self) -> int:
        value = self.x if self.y is None else self.y
        return len(next(iter(value.values())) if isinstance(value, Mapping) else value)

    def first(self, count: int) -> Examples:
        """The first ones, at most so many."""

        def cut(value: Any) -> Any:
            return {n: v[:count] for n, v in value.items()} if isinstance(value, Mapping) else value[:count]

        weight = None if self.weight is None else self.weight[:count]
        return Examples(cut(self.x), None if self.y is None else cut(self.y), weight)


def load_examples(
    path: str | os.PathLike[str], *, labelled: bool = True, max_bytes: int = MAX_DATA_BYTES
) -> Examples:
    """Read an `.npz` file: an array `x` or one per input; `y`, or `y/<output>` for each; perhaps `weight`.

    Nothing is executed, and no more is allocated than the file declares and `max_bytes` allows.

    Args:
        labelled: whether the file must hold labels.

    Raises:
        DataError: the file cannot be read, is no `.npz`, is over the limit, or lacks `x` or `y`.
        DataType: an array holds Python objects, text or records.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_arrays(archive, os.fspath(path), max_bytes)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"cannot read examples from {os.fspath(path)!r}: {exc}") from exc
    return named_examples(arrays, repr(os.fspath(path)), labelled=labelled)


def named_examples(arrays: Mapping[str, Array], where: str, *, labelled: bool = True) -> Examples:
    """Examples out of arrays named as an `.npz` names them: inputs, `y` or `y/<output>`, perhaps `weight`.

    Args:
        where: what holds the arrays, for the error.
        labelled: whether there must be labels.

    Raises:
        DataError: there are no inputs, or no labels.
    """
    rest = dict(arrays)
    labels = {name: rest.pop(name) for name in arrays if name == "y" or name.startswith("y/")}
    if not rest or (labelled and not labels):
        names, needed = sorted([*rest, *labels]), "'x' and 'y'" if labelled else "'x'"
        raise DataError(f"{where} holds arrays {names}, expected {needed}")
    weight = rest.pop("weight", None) if len(rest) > 1 else None
    return Examples(rest.get("x", rest), labels.get("y", labels) if labels else None, weight)


def check_examples(x: Inputs, y: Labels, manifest: Wanted) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and labels by contract name, in the dtypes the graphs take.

    Raises:
        DataShape: wrong dimensions, missing or unknown inputs, different lengths, or no example at all.
        DataType: a dtype that cannot be converted without loss.
        LabelRange: a label outside the model's classes.
        IndexRange: a number the model has nothing to look up with, such as a token id outside the vocabulary.
        NotFinite: NaN or infinity, with the first example that has it.
    """
    inputs = check_inputs(x, manifest.inputs)
    given = labels_by_name(y, manifest)
    count = len(next(iter(inputs.values())))
    labels = {}
    for head in manifest.heads:
        name = head.label.name
        labels[name] = check_tensor(np.asarray(given[name]), head.label)
        if len(labels[name]) != count:
            raise DataShape(f"x has {count} examples, {name} has {len(labels[name])}")
        _check_labels(labels[name], head)
    return inputs, labels


def labels_by_name(y: Labels, manifest: Wanted) -> dict[str, Array]:
    """Labels by contract name; a mapping may name outputs without `y/`. DataShape for other names."""
    names = [head.label.name for head in manifest.heads]
    if not isinstance(y, Mapping):
        if len(names) > 1:
            raise DataShape(f"the model has labels {names}; give them by name, not as one array")
        return {names[0]: y}
    found = {name if name in names else f"y/{name}": value for name, value in y.items()}
    if set(found) != set(names):
        raise DataShape(f"the model has labels {names}, given {sorted(found)}")
    return found


def check_weight(weight: Any, count: int) -> Array:
    """Weights of examples as float32 `[examples]`: finite, 0 or more, not all 0; all 1 where None.

    Raises:
        DataShape, OptionError: they are something else.
    """
    if weight is None:
        return np.ones(count, np.float32)
    value = np.asarray(weight, np.float32)
    if value.shape != (count,):
        raise DataShape(f"'weight' has shape {value.shape}, expected ({count},)")
    if not (np.isfinite(value).all() and (value >= 0).all() and value.any()):
        raise OptionError("'weight' holds negative or non-finite values, or only zeros")
    return value


def check_inputs(x: Inputs, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Inputs by contract name in the dtypes of `specs`; errors as for `check_examples`."""
    named = dict(x) if isinstance(x, Mapping) else {specs[0].name: x}
    wanted = {spec.name for spec in specs}
    if set(named) != wanted:
        raise DataShape(f"model inputs are {sorted(wanted)}, given {sorted(named)}")
    inputs = {spec.name: check_tensor(np.asarray(named[spec.name]), spec) for spec in specs}
    lengths = {name: len(value) for name, value in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise DataShape(f"inputs have different numbers of examples: {lengths}")
    return inputs


def check_tensor(value: Array, spec: TensorSpec) -> Array:
    """One array, checked and converted; errors as for `check_examples`."""
    if value.ndim != len(spec.shape) or value.shape[1:] != spec.example_shape:
        expected = ", ".join(["examples", *map(str, spec.example_shape)])
        raise DataShape(f"{spec.name!r} has shape {value.shape}, expected ({expected})")
    if len(value) == 0:
        raise DataShape(f"{spec.name!r} holds no examples")
    converted = _convert(value, spec)
    if spec.below:
        _check_index(converted, spec)
    return converted


def _convert(value: Array, spec: TensorSpec) -> Array:
    dtype = np.dtype(spec.dtype)
    if value.dtype.kind not in "fiub":
        raise DataType(
            f"{spec.name!r} has dtype {value.dtype}, expected {dtype} or numbers that convert to it"
        )
    if value.dtype.kind == "f":
        _check_finite(value, spec.name)
    if value.dtype == dtype:
        return np.ascontiguousarray(value)
    with np.errstate(all="ignore"):
        converted = value.astype(dtype, order="C")
        # Between floats only the last digits may go; everywhere else the values must survive exactly.
        floats = value.dtype.kind == dtype.kind == "f"
        kept = np.isfinite(converted) if floats else _same(converted, value)
    if not kept.all():
        where = _first(~kept)
        raise DataType(
            f"{spec.name!r} has dtype {value.dtype}; value {value[where]} at {where} does not fit {dtype}: "
            "round, scale or cast it yourself if that is meant"
        )
    return converted


def _same(converted: Array, value: Array) -> Array:
    """Where a conversion kept the value; the way back can overflow, so signs are compared too."""
    same: Array = (converted.astype(value.dtype) == value) & ((converted < 0) == (value < 0))
    return same


def _check_finite(value: Array, name: str) -> None:
    finite = np.isfinite(value)
    if not finite.all():
        where = _first(~finite)
        raise NotFinite(f"{name!r} holds {value[where]} at {where}")


def ignored(head: Head, labels: Array) -> int | None:
    """The class number of labels that do not count; None where all do."""
    if head.loss_name not in CLASS_LOSSES:
        return None
    given = head.setting("ignore_index")
    if given is None:
        return IGNORED if labels.ndim > 1 else None
    try:
        return int(given)
    except ValueError as exc:
        raise ManifestError(f"loss {head.loss!r}: ignore_index is no whole number") from exc


def counted(head: Head, labels: Array) -> Array:
    """Which labels count in the loss; `next_token` predicts no first token."""
    left_out = ignored(head, labels)
    found: Array = np.ones(labels.shape, bool) if left_out is None else labels != left_out
    if head.loss_name == "next_token":
        found[:, :1] = False
    return found


def shares(head: Head, labels: Array) -> Array:
    """How much each example counts in the loss before its weight, float32 `[examples]`.

    1 where a label counts, 0 where none does; the number of those that count where the loss is their mean.
    """
    found = counted(head, labels).reshape(len(labels), -1)
    made = found.sum(1) if head.setting("reduction") == "token" else found.any(1)
    each: Array = made.astype(np.float32)
    return each


def _check_labels(labels: Array, head: Head) -> None:
    if head.loss_name in CLASS_LOSSES:
        left_out = ignored(head, labels)
        known = np.ones(labels.shape, bool) if left_out is None else labels != left_out
        hint = "" if left_out is not None else "; a label that is not to count needs ignore_index in the loss"
        _check_range(labels, known, head.label.name, head.output.shape[-1] - 1, hint)
    elif head.loss_name == "sigmoid_cross_entropy":
        _check_range(labels, np.ones(labels.shape, bool), head.label.name, 1)


def _check_range(labels: Array, known: Array, name: str, high: int, hint: str = "") -> None:
    outside = ((labels < 0) | (labels > high)) & known
    if outside.any():
        where = _first(outside)
        raise LabelRange(f"{name!r} holds label {labels[where]} at {where}, allowed 0 to {high}{hint}")


def _check_index(values: Array, spec: TensorSpec) -> None:
    outside = (values < 0) | (values >= spec.below)
    if outside.any():
        where = _first(outside)
        raise IndexRange(
            f"{spec.name!r} holds {values[where]} at {where}, allowed 0 to {spec.below - 1}, among which the "
            "model looks it up"
        )


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _read_arrays(archive: zipfile.ZipFile, path: str, max_bytes: int) -> dict[str, Array]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > MAX_ARRAYS or total > max_bytes:
        raise DataError(
            f"{path!r} holds {len(members)} arrays of {total} bytes, allowed {MAX_ARRAYS} and {max_bytes}"
        )
    arrays = {}
    for member in members:
        with archive.open(member) as file:
            where = f"array {member.filename!r} in {path!r}"
            arrays[member.filename.removesuffix(".npy")] = _read_npy(file, member.file_size, where)
    return arrays


def read_npy(path: Path) -> Array:
    """An array of numbers in a `.npy` file; errors as for `load_examples`."""
    try:
        with path.open("rb") as file:
            return _read_npy(file, path.stat().st_size, os.fspath(path))
    except (OSError, EOFError, ValueError) as exc:
        raise DataError(f"cannot read examples from {os.fspath(path)!r}: {exc}") from exc


def _read_npy(file: IO[bytes], length: int, where: str) -> Array:
    """One array in NumPy's format (NEP 1), whose declared size must be the size it has."""
    shape, fortran, dtype = _npy_header(file)
    if dtype.kind not in "fiub":
        raise DataType(f"{where} has dtype {dtype}, expected numbers")
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size > length:
        raise DataError(f"{where} declares {size} of {length} bytes")
    data = file.read(size + 1)
    if len(data) != size:
        raise DataError(f"{where} holds {len(data)} bytes, declared {size}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    layout: Any = np.lib.format
    version = layout.read_magic(file)
    readers = {(1, 0): layout.read_array_header_1_0, (2, 0): layout.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"arrays of NumPy format {version} hold text or records, expected numbers")
    shape, fortran, dtype = readers[version](file)
    return shape, fortran, dtype
