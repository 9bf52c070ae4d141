# SPDX-License-Identifier: Apache-2.0
"""The int8 export of attention, on a small transformer that reads scikit-learn's digits row by row.

Trained, because in a network with random weights the classes lie so close that rounding swaps them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
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
