# SPDX-License-Identifier: Apache-2.0
"""The artifacts of onnxruntime-training, trained by the engine itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import ArtifactData
from edgefl.cli.verify import check_engines
from edgefl.converters.targets.ort_training import loss_graph, to_ort_training
from edgefl.errors import BackendUnavailable, NotResumable, OptionError, UnsupportedOperator
from edgefl.graph import read_onnx
from edgefl.runtime.backends import open_backend

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime.training")
nn = torch.nn
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(90, 1, 8, 8)).astype(np.float32), RNG.integers(0, 3, 90).astype(np.int32)


def network() -> Any:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 3),
    )
    model = nn.Sequential(*layers)
    model[1].running_mean += torch.arange(4.0)
    return model.eval()


@pytest.fixture(scope="module")
def bundle() -> edgefl.Bundle:
    return edgefl.convert(network(), X[:1], batch_size=8, targets=["onnx", "ort-training"])


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.05), ("adam", 0.003)])
def test_twenty_steps_match_the_numpy_engine(bundle: edgefl.Bundle, optimizer: str, lr: float) -> None:
    trained, losses = {}, {}
    for backend in ("ort-training", "numpy"):
        trainer = edgefl.Trainer(bundle, backend=backend)
        losses[backend] = trainer.fit(X, Y, epochs=2, lr=lr, optimizer=optimizer, steps=20).losses
        trained[backend] = trainer.parameters()

    assert list(trained["ort-training"]) == list(trained["numpy"])
    np.testing.assert_allclose(losses["ort-training"], losses["numpy"], rtol=1e-3)
    for name, value in trained["numpy"].items():
        np.testing.assert_allclose(trained["ort-training"][name], value, rtol=1e-3, atol=1e-4)


def test_frozen_batchnorm_keeps_its_statistics(bundle: edgefl.Bundle) -> None:
    expected = nn.functional.cross_entropy(network()(torch.from_numpy(X[:8])), torch.from_numpy(Y[:8]).long())

    report = edgefl.Trainer(bundle, backend="ort-training").fit(X[:8], Y[:8], steps=1)

    assert report.loss_first == pytest.approx(expected.item(), rel=1e-5)


def test_training_starts_from_the_parameters_given(bundle: edgefl.Bundle) -> None:
    values = {
        name: np.zeros_like(value) for name, value in edgefl.Trainer(bundle, "numpy").parameters().items()
    }
    trainer = edgefl.Trainer(bundle, backend="ort-training")
    trainer.rebase(values)

    report = trainer.fit(X[:8], Y[:8], steps=1)

    assert report.loss_first == pytest.approx(np.log(3), rel=1e-5)
    assert set(trainer.delta()) == set(values)


def test_second_fit_goes_on_from_the_first(bundle: edgefl.Bundle) -> None:
    once, twice = (edgefl.Trainer(bundle, backend="ort-training") for _ in range(2))

    once.fit(X[:8], Y[:8], epochs=2)
    for _ in range(2):
        twice.fit(X[:8], Y[:8])

    for name, value in once.parameters().items():
        np.testing.assert_allclose(twice.parameters()[name], value, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mu": 0.1}, "mu=0.1"),
        ({"momentum": 0.9}, "momentum=0.9"),
        ({"clip_norm": 1.0}, "clip_norm=1.0"),
        ({"weight_decay": 0.1}, "weight_decay=0.1"),
        ({"schedule": "cosine"}, "schedule='cosine'"),
    ],
)
def test_what_its_optimizers_lack_is_refused(
    bundle: edgefl.Bundle, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(OptionError, match=named):
        edgefl.Trainer(bundle, backend="ort-training").fit(X, Y, **options)


def test_scaffold_is_refused(bundle: edgefl.Bundle) -> None:
    trainer = edgefl.Trainer(bundle, backend="ort-training")

    with pytest.raises(OptionError, match="SCAFFOLD"):
        trainer.fit(X, Y, correction=trainer.parameters())


def test_integer_constants_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 128), nn.Linear(128, 3))
    bundle = edgefl.convert(model, X[:1], batch_size=4, targets=["onnx"], trainable="1.*", frozen_bits=8)

    with pytest.raises(UnsupportedOperator, match="integer constants"):
        to_ort_training(bundle)


def test_dropout_in_training_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    with pytest.raises(UnsupportedOperator, match="dropout"):
        edgefl.convert(model, X[:1], batch_size=4, targets=["onnx", "ort-training"], dropout=True)


def test_operator_without_gradient_is_refused_by_name() -> None:
    class WithElu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(64, 3)

        def forward(self, x: Any) -> Any:
            return nn.functional.elu(self.dense(x.flatten(1)))

    with pytest.raises(UnsupportedOperator, match=r"no gradient for operator \w+ .*target onnx trains it"):
        edgefl.convert(WithElu(), X[:1], batch_size=4, targets=["onnx", "ort-training"])


def test_loss_graph_holds_no_gradient(bundle: edgefl.Bundle) -> None:
    step = read_onnx(bundle.artifact("onnx", "step"))

    graph = loss_graph(step)

    assert list(graph.outputs) == ["loss"]
    assert len(graph.nodes) < len(step.nodes)


def test_slice_holds_what_the_engine_runs(bundle: edgefl.Bundle) -> None:
    light = bundle.slice("ort-training")

    assert {a.target for a in light.manifest.artifacts} == {"ort-training", "onnx"}
    assert edgefl.Trainer(light, backend="ort-training").evaluate(X, Y).examples == 90


def test_verify_makes_a_step_with_its_artifacts(bundle: edgefl.Bundle) -> None:
    check = next(c for c in check_engines(bundle) if c.target == "ort-training")

    assert check.verdict == "agrees"


def test_verify_finds_a_checkpoint_of_another_model(bundle: edgefl.Bundle) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    other = edgefl.convert(model, X[:1], batch_size=8, targets=["onnx", "ort-training"])
    data = bytes(other.artifact("ort-training", "checkpoint"))

    wrong = bundle.with_artifacts([ArtifactData("ort-training", "checkpoint", data)])

    check = next(c for c in check_engines(wrong) if c.target == "ort-training")
    assert check.verdict == "refused"
    assert "onnxruntime" in check.reason


def test_bundle_without_its_artifacts_is_refused() -> None:
    plain = edgefl.convert(network(), X[:1], batch_size=8, targets=["onnx"])

    with pytest.raises(BackendUnavailable, match="runs ort-training artifacts"):
        open_backend(plain, "ort-training")


def test_device_needs_neither_torch_nor_onnx(bundle: edgefl.Bundle, tmp_path: Path) -> None:
    bundle.slice("ort-training").save(tmp_path / "m.edgefl")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import numpy as np, edgefl\n"
        f"bundle = edgefl.Bundle.open({str(tmp_path / 'm.edgefl')!r})\n"
        "trainer = edgefl.Trainer(bundle, backend='ort-training')\n"
        "print(trainer.fit(np.zeros((8, 1, 8, 8), np.float32), np.zeros(8, np.int32)).steps)"
    )

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)

    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_stopped_training_goes_on_to_the_same_bits(bundle: edgefl.Bundle, optimizer: str) -> None:
    """The engine's own checkpoint has the moments of its Adam and the count of its steps."""
    options: dict[str, Any] = {"epochs": 2, "lr": 0.003, "optimizer": optimizer}
    whole, steps = edgefl.Trainer(bundle, backend="ort-training"), iter(range(100))
    report = whole.fit(X, Y, **options)

    part = edgefl.Trainer(bundle, backend="ort-training").fit(
        X, Y, **options, should_stop=lambda: next(steps) >= 5
    )
    trainer = edgefl.Trainer(bundle, backend="ort-training")
    rest = trainer.fit(X, Y, **options, resume=part.checkpoint)

    assert part.steps == 5 and rest.losses == report.losses
    for name, value in whole.parameters().items():
        np.testing.assert_array_equal(trainer.parameters()[name], value)
    with pytest.raises(NotResumable, match="optimizer"):
        edgefl.Trainer(bundle, backend="onnx").fit(X, Y, **options, resume=part.checkpoint)
