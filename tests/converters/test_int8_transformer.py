# SPDX-License-Identifier: Apache-2.0
"""The int8 export of attention, on a small transformer that reads scikit-learn's digits row by row.

Trained, because in a network with random weights the classes lie so close that rounding swaps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.targets import TFLiteModel
from edgefl.graph import read_onnx

pytest.importorskip("tensorflow")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

TRAINING = 1280


def images() -> tuple[Any, Any]:
    data = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.images[order] / 16).astype(np.float32), data.target[order]


class Reader(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.nn.Linear(8, 48)
        self.position = torch.nn.Parameter(torch.randn(8, 48) * 0.1)
        layer = torch.nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, activation="gelu", dropout=0)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = torch.nn.Linear(48, 10)

    def forward(self, x: Any) -> Any:
        return self.classes(self.encoder(self.rows(x) + self.position).mean(1))


def trained(x: Any, y: Any) -> Any:
    torch.manual_seed(0)
    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(10):
        for start in range(0, len(x), 64):
            optimizer.zero_grad()
            batch = torch.tensor(x[start : start + 64]), torch.tensor(y[start : start + 64])
            torch.nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    x, y = images()
    model = trained(x[:TRAINING], y[:TRAINING])
    return edgefl.convert(model, x[:1], calibration=x[:512], batch_size=4)


def test_both_targets_choose_the_float_model_s_class(bundle: Bundle) -> None:
    report = bundle.manifest.report["int8"]

    assert report["between"] >= 0.99
    assert min(report["agreement"].values()) >= 0.99


def test_unseen_examples_lose_at_most_a_point(bundle: Bundle) -> None:
    x, y = (part[TRAINING:] for part in images())
    trainer = edgefl.Trainer(bundle, backend="numpy")
    before = float((trainer.predict(x).argmax(-1) == y).mean())
    data = bundle.artifact("onnx", "infer-int8")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    chosen = np.array([session.run(None, {"x": row[None]})[0].argmax() for row in x])

    assert before > 0.9
    assert float((chosen == y).mean()) >= before - 0.01


def test_heads_merged_with_the_batch_still_take_one_example_at_a_time(bundle: Bundle) -> None:
    graph = read_onnx(bundle.artifact("onnx", "infer"))

    assert graph.inputs["x"].shape[0] == 4
    assert onnxruntime.InferenceSession(bundle.artifact("onnx", "infer-int8")).get_inputs()[0].shape[0] == 1


class Masked(torch.nn.Module):  # type: ignore[misc]
    """Attention over what is not padding, masked with the lowest float as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = torch.nn.Linear(8, 16), torch.nn.Linear(8, 16)
        self.classes = torch.nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        lowest = torch.finfo(torch.float32).min
        scores = torch.where(x[:, None, :, 0] > 0.5, torch.tensor(0.0), torch.tensor(lowest)) + scores
        return self.classes((scores.softmax(-1) @ x).mean(1))


def test_masks_of_the_lowest_float_leave_the_scores_their_steps(
    litert: Callable[..., Any], tflite_runtime: Callable[..., Any]
) -> None:
    torch.manual_seed(0)
    x = images()[0][:64]
    x[:, :, 0] = np.random.default_rng(0).integers(0, 2, x.shape[:2])
    made = edgefl.convert(Masked(), x[:1], calibration=x, batch_size=4)
    wanted = edgefl.Trainer(made, backend="numpy").predict(x)
    model = TFLiteModel(
        made.artifact("tflite", "infer-int8"), {"x": "x"}, {"output": "output"}, signature="infer"
    )

    assert max(made.manifest.report["int8"]["error"].values()) < 0.1
    for engine in (litert, tflite_runtime):
        found = np.concatenate([engine(model, {"x": row[None]})["output"] for row in x[:16]])
        assert np.sqrt(np.square(found - wanted[:16]).mean()) < 0.1 * wanted.std()
