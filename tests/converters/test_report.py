# SPDX-License-Identifier: Apache-2.0
"""What the trainability report says."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch

import edgefl
from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.report import make_report, peak_activations, what_runs
from edgefl.converters.selection import select
from edgefl.converters.step import make_graphs
from edgefl.errors import UnsupportedOperator
from edgefl.graph import TensorType
from tests.converters.small_models import cnn_2d

F32 = np.dtype(np.float32)


def report_of(spec: str, personal: str | None = None):
    f = cnn_2d().forward
    chosen = select(list(f.parameters), f.trainable, spec, personal=personal, buffers=f.buffers)
    return make_report(f, make_graphs(f, chosen, "softmax_cross_entropy"))


def test_parameters_by_role():
    report = report_of("head.weight", personal="head.bias")
    assert report.parameters["shared"].elements == 60
    assert report.parameters["personal"].nbytes == 20
    assert report.parameters["buffer"].tensors == 1
    assert report.trained == ("head.weight", "head.bias")


def test_the_cut_and_operators():
    report = report_of("head.*")
    assert report.cut and report.feature_bytes == 12 * 4
    assert set(report.operators) == {"step", "features", "infer"}
    assert "Conv" in report.operators["features"] and "Conv" not in report.operators["step"]
    whole = report_of("all")
    assert whole.cut == () and whole.feature_bytes == 0
    assert set(whole.operators) == {"step", "infer"}


def test_memory():
    report = report_of("head.*")
    assert report.memory.gradients == 65 * 4
    assert report.memory.weights >= 65 * 4
    assert report.memory.total == report.memory.weights + report.memory.gradients + report.memory.activations
    assert report_of("all").memory.activations > report.memory.activations


def test_json():
    plain = json.loads(json.dumps(report_of("head.*").to_json()))
    assert plain["parameters"]["shared"]["tensors"] == 2
    assert plain["memory"]["total"] > 0
    assert plain["trained"] == ["head.weight", "head.bias"]


def peak_of(emit):
    b = GraphBuilder()
    b.output("out", emit(Expr(b, b.input("x", TensorType(F32, (100,))))).sum().name)
    return peak_activations(b.build())


def test_peak_counts_what_is_alive_at_once():
    def branched(x):
        kept = x.apply("Exp")
        return kept.apply("Tanh").apply("Relu") + kept

    assert peak_of(lambda x: x.apply("Exp").apply("Tanh").apply("Relu")) == 2 * 400
    assert peak_of(branched) == 3 * 400


def test_what_runs_each_target():
    manifest = edgefl.convert(torch.nn.Linear(4, 3), np.zeros((2, 4), np.float32), batch_size=2).manifest
    runs = manifest.report["runs"]
    assert runs == what_runs(manifest) and list(runs) == ["onnx", "tflite"]
    assert runs["onnx"]["trains"] and runs["onnx"]["graphs"] == ["infer", "step"]
    assert "onnxruntime" in runs["onnx"]["engines"]
    assert re.fullmatch(r"LiteRT, tflite-runtime from [0-9.]+", runs["tflite"]["engines"])


def test_an_operator_that_tflite_lacks_says_what_to_do(monkeypatch):
    def refuse(graph, kind):
        raise UnsupportedOperator("node 'odd': operator Odd has no counterpart in TFLite")

    monkeypatch.setattr(sys.modules["edgefl.converters.artifacts"], "to_tflite", refuse)
    with pytest.raises(UnsupportedOperator, match=r"step for TFLite: node 'odd'.* --target onnx"):
        edgefl.convert(torch.nn.Linear(4, 3), np.zeros((2, 4), np.float32), batch_size=2)
