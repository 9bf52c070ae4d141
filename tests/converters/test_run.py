# SPDX-License-Identifier: Apache-2.0
"""What an engine cannot run is said in one line, by an error of ours."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets.onnx import to_onnx
from edgefl.converters.targets.run import run_onnx
from edgefl.errors import NotProved
from edgefl.graph import TensorType


def test_a_file_that_is_none_is_refused_in_one_line() -> None:
    with pytest.raises(NotProved, match="does not run the ONNX file") as caught:
        run_onnx(b"no model", [{}])
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_while_it_runs_is_refused_in_one_line() -> None:
    builder = GraphBuilder("reshaped")
    given = builder.input("x", TensorType(np.dtype(np.float32), (2, 3)))
    builder.output("y", builder.add("Relu", given))
    data = to_onnx(builder.build("reshaped"))

    assert run_onnx(data, [{"x": np.ones((2, 3), np.float32)}])[0]["y"].shape == (2, 3)
    with pytest.raises(NotProved, match="does not run the ONNX file") as caught:
        run_onnx(data, [{"x": np.ones((5, 3), np.float32)}])
    assert "\n" not in str(caught.value)
