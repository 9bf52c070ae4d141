# SPDX-License-Identifier: Apache-2.0
"""The layout checked against the package that defines it."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.tensorfile import DTYPES, read_tensors, write_tensors

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


def test_same_bytes_where_all_tensors_have_one_dtype() -> None:
    arrays = {"b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "ä": np.ones(3, np.float32)}

    assert write_tensors(arrays) == safetensors.save(arrays)


@pytest.mark.parametrize("dtype", [d.newbyteorder("=") for d in DTYPES.values()], ids=str)
def test_each_reads_what_the_other_writes(dtype: np.dtype) -> None:
    arrays = {
        "a": np.arange(4).astype(dtype),
        "scalar": np.asarray(1, dtype),
        "none": np.zeros((0, 2), dtype),
    }

    for back in (safetensors.load(write_tensors(arrays)), read_tensors(safetensors.save(arrays))):
        for name, value in arrays.items():
            np.testing.assert_array_equal(back[name], value)
            assert back[name].dtype == dtype
