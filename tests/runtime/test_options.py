# SPDX-License-Identifier: Apache-2.0
"""One value says how to train."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import edgefl
from edgefl import options as declared
from edgefl.bundle import Bundle
from edgefl.delta import MODES
from edgefl.delta.asked import check_payload
from edgefl.errors import OptionError
from edgefl.options import CodingOptions, FitOptions, ServerOptions
from edgefl.runtime import Trainer
from edgefl.runtime.update import encode_update
from tests.fixtures.make import examples

pytestmark = pytest.mark.device

X, Y = examples(24, 3)


def test_it_is_public_and_frozen() -> None:
    assert edgefl.FitOptions is FitOptions
    with pytest.raises(FrozenInstanceError):
        FitOptions().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("epochs", 1.0), ("epochs", True), ("epochs", "3"),
        ("steps", -1),
        ("lr", 0), ("lr", -1.0), ("lr", float("nan")), ("lr", float("inf")),
        ("momentum", 1.0), ("momentum", -0.1),
        ("optimizer", "lion"), ("optimizer", None),
        ("mu", -1), ("clip_norm", 0.0),
        ("seed", -1), ("seed", 2**63),
    ],
)  # fmt: skip
def test_every_field_has_a_rule(mlp: Bundle, field: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"^{field}={value!r}: allowed is ".replace(".", r"\.")):
        FitOptions(**{field: value})
    with pytest.raises(OptionError, match=f"^{field}="):
        replace(FitOptions(), **{field: value})
    with pytest.raises(OptionError, match=f"^{field}="):
        Trainer(mlp, "numpy").fit(X, Y, **{field: value})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (CodingOptions, "mode", "zip"), (CodingOptions, "density", 0), (CodingOptions, "density", 2),
        (CodingOptions, "payload", -1), (CodingOptions, "whole_below", -1), (CodingOptions, "warm_up", -1),
        (CodingOptions, "correction", 1.0), (CodingOptions, "residual_decay", 1.5),
        (CodingOptions, "per_tensor", 1),
        (ServerOptions, "rounds", -1), (ServerOptions, "goal", 0), (ServerOptions, "minimum", 0),
        (ServerOptions, "deadline_s", 0), (ServerOptions, "surplus", -0.1), (ServerOptions, "max_norm", -1),
        (ServerOptions, "max_norm", 0), (ServerOptions, "max_examples", 0), (ServerOptions, "server_lr", 0),
        (ServerOptions, "server_momentum", 1.0), (ServerOptions, "downlink", 1.0),
    ],
)  # fmt: skip
def test_coding_and_rounds_have_rules_too(kind: type, field: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"^{field}="):
        kind(**{field: value})


def test_numbers_of_numpy_are_numbers() -> None:
    found = FitOptions(epochs=np.int64(3), lr=np.float32(0.5), seed=np.uint8(7))

    assert found == FitOptions(epochs=3, lr=0.5, seed=7)
    assert [type(v) for v in (found.epochs, found.lr, found.seed)] == [int, float, int]


def test_keywords_and_the_value_train_alike(mlp: Bundle) -> None:
    options = FitOptions(epochs=2, steps=5, lr=0.1, momentum=0.5, mu=0.1, clip_norm=1.0, seed=4)
    by_value, by_name, both = (Trainer(mlp, "numpy") for _ in range(3))

    losses = by_value.fit(X, Y, options).losses
    assert by_name.fit(X, Y, **options.to_json()).losses == losses
    assert both.fit(X, Y, replace(options, lr=9.0), lr=0.1).losses == losses
    assert len(losses) == 5


def test_a_keyword_there_is_not_is_named_with_those_there_are(mlp: Bundle) -> None:
    with pytest.raises(OptionError, match=r"'epoch', epochs may be meant; allowed are epochs, steps, lr"):
        Trainer(mlp, "numpy").fit(X, Y, epoch=3)


def test_the_names_of_modes_are_the_codec_s() -> None:
    assert tuple(MODES) == declared.MODES
    assert declared.STATELESS_MODES <= set(declared.MODES) >= set(declared.CHOOSING_MODES)


@pytest.mark.parametrize("mode", declared.CHOOSING_MODES)
@pytest.mark.parametrize("shape", [{}, {"per_tensor": True}, {"whole_below": 20}], ids=str)
def test_a_payload_is_refused_where_nothing_fits_and_only_there(
    mlp: Bundle, mode: str, shape: dict[str, bool | int]
) -> None:
    schema = mlp.schema()
    with pytest.raises(OptionError, match=r"^payload=30: .* the shortest take about \d+ bytes"):
        check_payload(CodingOptions(mode=mode, payload=30, **shape), schema)

    update = np.zeros(schema.size, np.float32)
    update[5] = 1.0
    told = {"loss": 0.5, "engine": "numpy"}
    frame = encode_update(
        update, CodingOptions(mode=mode, density=1e-9, **shape), seed=0, schema=schema, base_version=0,
        device="a", cohort=100, meta=told,
    )[0].frame  # fmt: skip
    check_payload(CodingOptions(mode=mode, payload=len(frame) + 16, **shape), schema)
