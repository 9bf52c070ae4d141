# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: nothing changes at first, gradients are torch's, merging gives the same model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import edgefl
from edgefl.converters.adapters import Adapter, merge
from edgefl.converters.autodiff import Expr
from edgefl.converters.lora import adapt, told
from edgefl.converters.selection import select
from edgefl.converters.sources import Forward
from edgefl.converters.step import make_graphs
from edgefl.errors import NotTrained, SelectionError
from edgefl.graph import Interpreter, run
from tests.converters.small_models import Model, build, cnn_1d, cnn_2d, mlp

F = torch.nn.functional


def embedding() -> Model:
    """Class scores of one-hot rows' positions, through a table."""

    def emit(p: dict[str, Expr], x: Expr) -> Expr:
        rows = p["table"].apply("Gather", x.apply("Abs").cast(np.int32), axis=0)
        return rows.sum([1]) @ p["out"]

    return build(
        (4, 3),
        {"table": (5, 6), "out": (6, 4)},
        emit,
        lambda p, x: p["table"][x.abs().int()].sum(1) @ p["out"],
    )


MODELS = {"mlp": mlp, "cnn_1d": cnn_1d, "cnn_2d": cnn_2d, "embedding": embedding}


def inputs_of(model: Model) -> np.ndarray:
    shape = model.forward.graph.inputs["x"].shape
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def disturbed(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters with factors away from zero."""
    random = np.random.default_rng(1)
    return {
        n: random.standard_normal(v.shape).astype(np.float32) * 0.3 if ".lora_" in n else v
        for n, v in values.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes_at_first(name):
    model = MODELS[name]()
    adapted, _, _ = adapt(model.forward, "lora:rank=2")
    x = inputs_of(model)
    before = run(model.forward.graph, {"x": x, **model.forward.parameters})["output"]
    after = run(adapted.graph, {"x": x, **adapted.parameters})["output"]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", MODELS)
def test_merging_gives_the_same_outputs(name):
    model = MODELS[name]()
    adapted, _, adapters = adapt(model.forward, "lora:rank=2:alpha=3")
    x, values = inputs_of(model), disturbed(dict(adapted.parameters))
    merged = merge(values, [Adapter.from_json(json.loads(json.dumps(a.to_json()))) for a in adapters])
    assert set(merged) == set(model.forward.parameters)
    expected = run(adapted.graph, {"x": x, **values})["output"]
    assert (
        np.abs(expected - run(model.forward.graph, {"x": x, **model.forward.parameters})["output"]).max()
        > 0.01
    )
    np.testing.assert_allclose(
        run(model.forward.graph, {"x": x, **merged})["output"], expected, rtol=1e-4, atol=1e-5
    )


def test_gradients_equal_torch():
    model = cnn_2d()
    adapted, spec, _ = adapt(model.forward, "lora:rank=3:*.weight,head.bias")
    roles = select(list(adapted.parameters), adapted.trainable, spec, buffers=adapted.buffers)
    graphs = make_graphs(adapted, roles, "softmax_cross_entropy")
    values, x = disturbed(dict(adapted.parameters)), inputs_of(model)
    y = np.array([0, 1, 4, 2], np.int32)
    frozen = {n: v for n, v in values.items() if n not in graphs.trained}
    assert all(np.array_equal(adapted.parameters[n], v) for n, v in frozen.items())
    features = run(graphs.features, {"x": x}) if graphs.features else {}
    batch = {"x": x, **features, "y": y, "weight": np.ones(4, np.float32)}
    made = Interpreter(graphs.step)(batch | {n: values[n] for n in graphs.trained})

    tensors = {n: torch.tensor(v, requires_grad=n in graphs.trained) for n, v in values.items()}

    def effective(name: str) -> torch.Tensor:
        if f"{name}.lora_a" not in tensors:
            return tensors[name]
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        if tensors[name].ndim == 2:
            return tensors[name] + (a @ b).T
        return tensors[name] + torch.einsum("mr,rckl->mckl", b[:, :, 0, 0], a)

    names = model.forward.parameters
    output = model.reference({n: effective(n) for n in names}, torch.tensor(x))
    F.cross_entropy(output, torch.tensor(y).long()).backward()
    assert "stem.weight.lora_a" in graphs.trained and "deep.weight.lora_a" not in graphs.trained
    for name in graphs.trained:
        expected = tensors[name].grad.numpy()
        np.testing.assert_allclose(
            made[f"grad/{name}"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
        )


def test_the_full_weight_gradient_is_never_formed():
    adapted, spec, _ = adapt(mlp().forward, "lora:rank=2")
    step = make_graphs(
        adapted, select(list(adapted.parameters), adapted.trainable, spec), "softmax_cross_entropy"
    ).step
    made = [step.type_of(n.outputs[0]).shape for n in step]
    assert (16, 12) not in made and (12, 16) not in made


def test_only_factors_and_what_else_is_named_are_trained():
    spec = "lora:rank=2:b.*,c.bias"
    adapted, adapters, trained = trained_by(spec)
    assert trained == ["c.bias", "b.weight.lora_a", "b.weight.lora_b"]
    assert [a.weight for a in adapters] == ["b.weight"]
    assert adapted.parameters["b.weight.lora_a"].shape == (16, 2)
    (note,), _ = told(adapted, spec, adapters, trained)
    assert "in full" in note and "c.bias" in note and "b.weight" not in note


def trained_by(spec: str) -> tuple[Forward, tuple[Adapter, ...], list[str]]:
    adapted, rest, adapters = adapt(mlp().forward, spec)
    roles = select(list(adapted.parameters), adapted.trainable, rest)
    return adapted, adapters, [n for n, r in roles.items() if r == "shared"]


def test_several_patterns_get_factors():
    _, adapters, trained = trained_by("lora:rank=2:a.*:b.*")
    assert [a.weight for a in adapters] == ["a.weight", "b.weight"]
    assert all(".lora_" in name for name in trained)


@pytest.mark.parametrize("spec", ["lora:rank=2,last:1", "lora:rank=2,c.*"])
def test_what_is_trained_in_full_has_no_factors(spec):
    adapted, adapters, trained = trained_by(spec)
    assert [a.weight for a in adapters] == ["a.weight", "b.weight"]
    assert [name for name in trained if ".lora_" not in name] == ["c.weight", "c.bias"]
    (note,), _ = told(adapted, spec, adapters, trained)
    assert "trained in full" in note and "c.weight, c.bias" in note


def test_what_is_excluded_has_no_factors():
    _, adapters, trained = trained_by("lora:rank=2,!b.*")
    assert [a.weight for a in adapters] == ["a.weight", "c.weight"]
    assert not [name for name in trained if name.startswith("b.")]


def test_a_weight_no_factor_can_stand_beside_is_named():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 4, 3, groups=2), torch.nn.Flatten(), torch.nn.Linear(16, 3)
    )
    example, options = np.zeros((1, 4, 4, 4), np.float32), {"targets": ("onnx",)}
    bundle = edgefl.convert(network, example, trainable="lora:rank=1", **options)
    (note,) = bundle.manifest.report["notes"]
    assert "without LoRA factors: 0.weight" in note
    with pytest.warns(NotTrained, match=r"0\.weight: factors stand beside"):
        bundle = edgefl.convert(network, example, trainable="lora:rank=1:?.weight", **options)
    assert list(bundle.manifest.report["untrained"]) == ["0.weight"]


def test_personal_weights_beside_factors_are_refused():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
    example = np.zeros((1, 4), np.float32)
    with pytest.raises(SelectionError, match=r"1\.weight: personal"):
        edgefl.convert(network, example, trainable="lora:rank=1", personal="1.*", targets=("onnx",))
    bundle = edgefl.convert(
        network, example, trainable="lora:rank=1,!1.weight", personal="1.*", targets=("onnx",)
    )
    roles = {p.name: p.role for p in bundle.manifest.trained}
    assert roles["1.weight"] == "personal" and roles["0.weight.lora_a"] == "shared"


def test_a_one_dimensional_convolution_gets_factors():
    network = torch.nn.Sequential(torch.nn.Conv1d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(30, 2))
    bundle = edgefl.convert(
        network, np.zeros((1, 3, 8), np.float32), trainable="lora:rank=2", batch_size=2, targets=("onnx",)
    )
    adapters = [Adapter.from_json(a) for a in bundle.manifest.report["lora"]]
    assert [a.weight for a in adapters] == ["0.weight", "2.weight"]
    values = disturbed(bundle.parameters())
    merged = merge(values, adapters)
    x = np.random.default_rng(2).standard_normal((2, 3, 8)).astype(np.float32)
    expected = edgefl.Trainer(bundle.with_parameters(values, 1), "numpy").predict(x)
    network.load_state_dict({n: torch.from_numpy(v) for n, v in merged.items()})
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_a_lora_part_nothing_happens():
    forward = mlp().forward
    assert adapt(forward, "last:1") == (forward, "last:1", ())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lora:rank=2:*.bias", "no weight of a dense layer"),
        ("lora:rank=2:nothing*", "no weight of a dense layer"),
        ("lora:alpha=2", "is not of the form"),
        ("lora:rank=few", "is not of the form"),
        ("lora:rank=0", "at least 1"),
        ("lora:rank=1:alpha=0", "alpha has to be"),
        ("lora:rank=1:alpha=nan", "alpha has to be"),
        ("lora:rank=1,lora:rank=2", "more than one part"),
    ],
)
def test_wrong_forms_are_refused(spec, message):
    with pytest.raises(SelectionError, match=message):
        adapt(mlp().forward, spec)


def test_a_converted_bundle_trains_the_factors():
    from edgefl.converters.convert import convert

    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    bundle = convert(
        model, np.zeros((2, 6), np.float32), trainable="lora:rank=2", batch_size=4, targets=("onnx",)
    )
    trained = [p.name for p in bundle.manifest.parameters if p.role == "shared"]
    assert trained == ["0.weight.lora_a", "0.weight.lora_b", "2.weight.lora_a", "2.weight.lora_b"]
    merged = merge(bundle.parameters(), [Adapter.from_json(a) for a in bundle.manifest.report["lora"]])
    np.testing.assert_array_equal(merged["0.weight"], model[0].weight.detach().numpy())
