# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from edgefl.bundle import Bundle, Manifest, TensorSpec
from edgefl.data import check_examples, load_examples, shares
from edgefl.errors import DataError, DataShape, DataType, LabelRange, ManifestError, NotFinite

pytestmark = pytest.mark.device

X, Y = np.zeros((5, 6), np.float32), np.array([0, 1, 2, 1, 0], np.int32)


@pytest.fixture
def manifest(mlp: Bundle) -> Manifest:
    return mlp.manifest


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def write_members(path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read(tmp_path, save) -> None:
    x, y = np.arange(12.0).reshape(2, 6), np.array([1, 2])
    save(tmp_path / "d.npz", x=np.asfortranarray(x), y=y.astype(">i8"), subject=np.array([7, 7]))

    examples = load_examples(tmp_path / "d.npz")

    np.testing.assert_array_equal(examples.x, x)
    np.testing.assert_array_equal(examples.y, y)
    assert examples.y.dtype.isnative
    assert len(examples) == 2


def test_arrays_by_name_where_there_is_no_x(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", left=X, right=X + 1, y=Y)

    examples = load_examples(tmp_path / "d.npz")

    assert isinstance(examples.x, dict)
    assert sorted(examples.x) == ["left", "right"]


def test_objects_are_refused_unread(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], dtype=object), y=Y)

    with pytest.raises(DataType, match="dtype object"):
        load_examples(tmp_path / "d.npz")


@pytest.mark.parametrize("arrays", [{"x": X}, {"y": Y}, {"a": X}])
def test_missing_arrays_are_named(tmp_path, arrays) -> None:
    np.savez(tmp_path / "d.npz", **arrays)

    with pytest.raises(DataError, match="expected 'x' and 'y'"):
        load_examples(tmp_path / "d.npz")


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04" + b"\0" * 50])
def test_other_files_are_refused(tmp_path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)

    with pytest.raises(DataError, match=r"d\.npz"):
        load_examples(tmp_path / "d.npz")


def test_an_absent_file_says_so(tmp_path) -> None:
    with pytest.raises(DataError, match=r"absent\.npz"):
        load_examples(tmp_path / "absent.npz")


def test_a_plain_npy_file_is_refused(tmp_path) -> None:
    np.save(tmp_path / "d.npy", X)

    with pytest.raises(DataError):
        load_examples(tmp_path / "d.npy")


@pytest.mark.parametrize(
    "member",
    [
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000)}"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", b"123"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", b"12345678"),
        npy(b"{'descr': '<f4', 'shape': (1,)}", b"1234"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", b"1234"),
        npy(b"__import__('os').abort()"),
        npy(b"not a header"),
        b"\x93NUMPY\x03\x00\x00\x00",
        b"\x93NUM",
        b"",
    ],
)
def test_malformed_arrays_are_refused(tmp_path, member: bytes) -> None:
    good = io.BytesIO()
    np.save(good, Y)
    write_members(tmp_path / "d.npz", x=member, y=good.getvalue())

    with pytest.raises(DataError):
        load_examples(tmp_path / "d.npz")


def test_a_bomb_is_refused_before_it_unfolds(tmp_path) -> None:
    header = b"{'descr': '|i1', 'fortran_order': False, 'shape': (50000000,)}"
    write_members(tmp_path / "d.npz", x=npy(header, b"\0" * 50_000_000), y=npy(header))
    tracemalloc.start()
    with pytest.raises(DataError, match="allowed 64 and 1000000"):
        load_examples(tmp_path / "d.npz", max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_good_examples_pass_unchanged(manifest: Manifest) -> None:
    inputs, labels = check_examples(X, Y, manifest)

    assert inputs["x"] is X
    assert labels["y"] is Y


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_])
def test_numbers_that_fit_are_converted(manifest: Manifest, dtype) -> None:
    inputs, labels = check_examples(np.ones((5, 6), dtype), Y.astype(np.float64), manifest)

    assert (inputs["x"].dtype, labels["y"].dtype) == (np.float32, np.int32)
    assert (inputs["x"] == 1).all()


def test_the_batch_need_not_be_contiguous(manifest: Manifest) -> None:
    inputs, _ = check_examples(np.zeros((6, 5), np.float32).T, Y, manifest)

    assert inputs["x"].flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X[0], Y, DataShape, r"'x' has shape \(6,\), expected \(examples, 6\)"),
        (X[:, :5], Y, DataShape, r"shape \(5, 5\), expected \(examples, 6\)"),
        (X, Y[:, None], DataShape, r"'y' has shape \(5, 1\), expected \(examples\)"),
        (X[:4], Y, DataShape, "x has 4 examples, y has 5"),
        (X[:0], Y[:0], DataShape, "no examples"),
        ({"z": X}, Y, DataShape, r"inputs are \['x'\], given \['z'\]"),
        (X.astype(str), Y, DataType, "expected float32"),
        (X.astype(complex), Y, DataType, "expected float32"),
        (X.astype(object), Y, DataType, "expected float32"),
        (np.full((5, 6), 1e300), Y, DataType, "does not fit float32"),
        (np.full((5, 6), 2**24 + 1), Y, DataType, "16777217 at \\(0, 0\\) does not fit float32"),
        (X, Y + 0.5, DataType, "does not fit int32"),
        (X, Y.astype(np.int64) + 2**32, DataType, "does not fit int32"),
        (X, np.array([0, 1, 3, 0, 0]), LabelRange, r"label 3 at \(2,\), allowed 0 to 2"),
        (X, np.array([0, -1, 0, 0, 0]), LabelRange, "label -1"),
        (X + np.nan, Y, NotFinite, r"'x' holds nan at \(0, 0\)"),
        (X - np.inf, Y, NotFinite, "-inf"),
        (X, Y * np.nan, NotFinite, "'y' holds nan"),
    ],
)
def test_bad_examples_are_refused(manifest: Manifest, x, y, error, message: str) -> None:
    with pytest.raises(error, match=message):
        check_examples(x, y, manifest)


def test_several_inputs_need_equal_lengths(manifest: Manifest) -> None:
    two = replace(manifest, inputs=(*manifest.inputs, TensorSpec("z", (8, 2), "float32")))

    with pytest.raises(DataShape, match="different numbers"):
        check_examples({"x": X, "z": np.zeros((4, 2))}, Y, two)


def test_sigmoid_labels_lie_between_0_and_1(manifest: Manifest) -> None:
    binary = replace(manifest, loss="sigmoid_cross_entropy", label=TensorSpec("y", (8, 3), "float32"))

    check_examples(X, np.full((5, 3), 0.5), binary)
    with pytest.raises(LabelRange, match="allowed 0 to 1"):
        check_examples(X, np.full((5, 3), 1.5), binary)


def test_labels_that_do_not_count(manifest: Manifest) -> None:
    words = replace(
        manifest, label=TensorSpec("y", (8, 4), "int32"), output=TensorSpec("output", (8, 4, 3), "float32")
    )

    check_examples(X, np.full((5, 4), -100), replace(words, loss="next_token"))
    check_examples(X, np.full((5, 4), -100), words)
    with pytest.raises(LabelRange, match="label -1 "):
        check_examples(X, np.full((5, 4), -1), words)
    with pytest.raises(LabelRange, match=r"label -100 .*needs ignore_index in the loss"):
        check_examples(X, np.full(5, -100), replace(manifest, loss="softmax_cross_entropy:smoothing=0.1"))
    for number in (-1, 7):
        loss = f"0.3*softmax_cross_entropy:ignore_index={number}:smoothing=0.1"
        check_examples(X, np.full(5, number), replace(manifest, loss=loss))
        with pytest.raises(LabelRange, match="label -100"):
            check_examples(X, np.full((5, 4), -100), replace(words, loss=loss))
    with pytest.raises(ManifestError, match="no whole number"):
        check_examples(X, Y, replace(manifest, loss="softmax_cross_entropy:ignore_index=few"))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("softmax_cross_entropy", [1, 1, 0]),
        ("softmax_cross_entropy:reduction=token", [2, 3, 0]),
        ("next_token", [1, 1, 0]),
        ("next_token:reduction=token", [1, 2, 0]),
        ("next_token:reduction=token:ignore_index=0", [2, 1, 2]),
        ("mean_squared_error", [1, 1, 1]),
    ],
)
def test_how_much_examples_count(manifest: Manifest, loss: str, expected: list[int]) -> None:
    labels = np.array([[1, 2, -100], [1, 2, 0], [-100, -100, -100]])

    assert shares(replace(manifest, loss=loss).heads[0], labels).tolist() == expected


def test_regression_labels_are_free(manifest: Manifest) -> None:
    regression = replace(manifest, loss="mean_squared_error", label=TensorSpec("y", (8, 3), "float32"))

    _, labels = check_examples(X, np.full((5, 3), -40), regression)

    assert labels["y"].dtype == np.float32
