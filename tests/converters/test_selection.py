# SPDX-License-Identifier: Apache-2.0
"""Which role a selection gives each parameter."""

from __future__ import annotations

import pytest

from edgefl.converters.selection import layer_of, select
from edgefl.errors import SelectionError

NAMES = [
    "embed.weight", "body.0.norm1.weight", "body.0.norm1.bias", "body.0.fc.weight", "body.0.fc.bias",
    "body.0.bn.running_mean", "fixed.weight", "head.weight", "head.bias",
]  # fmt: skip
BUFFERS = {"body.0.bn.running_mean"}
TRAINABLE = [n for n in NAMES if n not in BUFFERS and not n.startswith("fixed")]


def shared(spec, **options):
    roles = select(NAMES, TRAINABLE, spec, buffers=BUFFERS, **options)
    assert list(roles) == NAMES
    return [name for name, role in roles.items() if role == "shared"]


def test_all():
    assert shared("all") == TRAINABLE


def test_the_rest_is_frozen_or_a_buffer():
    roles = select(NAMES, TRAINABLE, "head.*", buffers=BUFFERS)
    assert roles["embed.weight"] == roles["fixed.weight"] == "frozen"
    assert roles["body.0.bn.running_mean"] == "buffer"


def test_last_counts_layers_that_train():
    assert shared("last:1") == ["head.weight", "head.bias"]
    assert shared("last:2") == ["body.0.fc.weight", "body.0.fc.bias", "head.weight", "head.bias"]


def test_bias_and_norm():
    assert shared("bias") == ["body.0.norm1.bias", "body.0.fc.bias", "head.bias"]
    assert shared("norm") == ["body.0.norm1.weight", "body.0.norm1.bias"]


def test_keras_names():
    names = ["dense/kernel", "dense/bias", "bn/gamma", "bn/beta", "gru/bias"]
    assert [n for n, r in select(names, names, "bias").items() if r == "shared"] == [
        "dense/bias",
        "bn/beta",
        "gru/bias",
    ]
    assert [n for n, r in select(names, names, "norm").items() if r == "shared"] == ["bn/gamma", "bn/beta"]


@pytest.mark.parametrize(
    "spec",
    [
        "head.*,body.*.bias",
        ["head.*", "body.*.bias"],
        lambda n: n.startswith("head") or n[:4] + n[-4:] == "bodybias",
    ],
)
def test_patterns_lists_and_predicates(spec):
    assert shared(spec) == ["body.0.norm1.bias", "body.0.fc.bias", "head.weight", "head.bias"]


def test_exclusion():
    assert shared("head.*,!*.bias") == ["head.weight"]
    assert shared("!body.*,!embed.*") == ["head.weight", "head.bias"]
    assert shared("*,!bias,!last:1") == ["embed.weight", "body.0.norm1.weight", "body.0.fc.weight"]


def test_personal_parameters_are_trained_and_not_shared():
    roles = select(NAMES, TRAINABLE, "all", personal="head.*")
    assert roles["head.weight"] == "personal"
    assert "head.bias" not in shared("all", personal="head.*")
    only = select(NAMES, TRAINABLE, "embed.*", personal="head.bias")
    assert [n for n, r in only.items() if r == "personal"] == ["head.bias"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("haed.*", "no trainable parameter matches 'haed.\\*'; near it: head"),
        ("body.*,!nothing", "'nothing'"),
        ("fixed.*", "does not train: fixed.weight"),
        ("*running_mean", "does not train"),
        ("last:0", "from 1 to 4"),
        ("last:5", "from 1 to 4"),
        ("last:many", "from 1 to 4"),
        ("", "empty pattern"),
        ("head.*,,bias", "empty pattern"),
        ([], "empty pattern"),
        ("head.*,!head.*", "selects none"),
        (lambda name: False, "selects none"),
    ],
)
def test_what_matches_nothing_is_refused(spec, message):
    with pytest.raises(SelectionError, match=message):
        shared(spec)


@pytest.mark.parametrize(
    ("name", "layer"), [("a.b.weight", "a.b"), ("a/kernel", "a"), ("scale", ""), ("a/b.c", "a/b")]
)
def test_layers(name, layer):
    assert layer_of(name) == layer
