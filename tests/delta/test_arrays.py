# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from edgefl.delta import decode_delta, encode_delta, encode_with_feedback
from edgefl.errors import DataShape, DeltaBase, DeltaOption, DeltaSchema
from edgefl.parameters import Parameter, Schema

DELTA = {
    "head/kernel": np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10),
    "a/bias": np.arange(10, dtype=np.float32),
}


@dataclass(frozen=True)
class Model:
    """The little of a bundle that the codec reads."""

    version: int = 5
    order: tuple[str, ...] = ("head/kernel", "a/bias")
    manifest: SimpleNamespace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "manifest", SimpleNamespace(model_version=self.version))

    def schema(self) -> Schema:
        return Schema(tuple(Parameter(n, DELTA[n].shape, "float32", "shared") for n in self.order))


def test_named_arrays_come_back_with_shapes_and_types() -> None:
    delta = DELTA | {"half": np.ones((2, 2), np.float16), "double": np.full(3, 0.5)}

    decoded = decode_delta(encode_delta(delta, None, density=1.0), Schema.of_arrays(delta))

    assert {n: (a.shape, a.dtype) for n, a in decoded.items()} == {
        n: (a.shape, a.dtype) for n, a in delta.items()
    }
    assert all(np.allclose(decoded[name], delta[name], atol=0.02) for name in delta)


def test_the_order_of_the_dictionary_does_not_matter() -> None:
    assert encode_delta(DELTA, None) == encode_delta(dict(reversed(DELTA.items())), None)


def test_a_bundle_decides_order_and_version() -> None:
    payload = encode_delta(DELTA, Model(), density=0.1)

    decoded = decode_delta(payload, Model())

    assert sum(np.count_nonzero(a) for a in decoded.values()) == 7
    assert np.count_nonzero(decoded["a/bias"]) == 7
    with pytest.raises(DeltaSchema):
        decode_delta(payload, Model(order=("a/bias", "head/kernel")))
    with pytest.raises(DeltaBase, match="version 5"):
        decode_delta(payload, Model(version=6))


def test_decoding_needs_to_know_the_parameters() -> None:
    with pytest.raises(DeltaOption, match="schema"):
        decode_delta(encode_delta(DELTA, None), None)  # type: ignore[arg-type]


def test_arrays_that_do_not_fit_the_bundle_are_refused() -> None:
    with pytest.raises(DataShape, match="a/bias"):
        encode_delta({"head/kernel": DELTA["head/kernel"]}, Model())


def test_what_a_frame_leaves_out_comes_with_later_ones() -> None:
    residual, total, sent = None, np.zeros(70, np.float32), np.zeros(70, np.float32)
    for version in range(5, 35):
        model = Model(version=version)
        payload, residual = encode_with_feedback(DELTA, model, residual, density=0.05)
        sent += model.schema().flatten(decode_delta(payload, model))
        total += model.schema().flatten(DELTA)

    assert residual is not None
    np.testing.assert_allclose(sent + residual.vector, total, rtol=1e-5, atol=1e-4)
    assert np.count_nonzero(sent) > 30  # alone, a frame carries the same 4 every time


def test_modes_without_state_leave_nothing() -> None:
    payload, residual = encode_with_feedback(DELTA, Model(), None, mode="unbiased", density=0.1, rng=0)

    assert residual is None
    assert payload == encode_delta(DELTA, Model(), mode="unbiased", density=0.1, rng=0)


def test_a_residual_of_another_schema_is_dropped() -> None:
    other = Model(order=("a/bias", "head/kernel"))
    _, residual = encode_with_feedback(DELTA, other, None, density=0.05)

    assert encode_with_feedback(DELTA, Model(), residual, density=0.05)[0] == encode_delta(
        DELTA, Model(), density=0.05
    )


def test_subset_moves_other_parameters_in_every_version() -> None:
    moved = np.zeros(70, bool)
    for version in range(30):
        model = Model(version=version)
        payload = encode_delta(DELTA, model, mode="subset", density=0.1, rng=0)
        assert payload == encode_delta(DELTA, model, mode="subset", density=0.1, rng=0)
        moved |= model.schema().flatten(decode_delta(payload, model)) != 0

    assert moved.sum() > 50  # 30 draws of a tenth miss 3 of 70 in the mean
