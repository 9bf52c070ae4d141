# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from edgefl.delta import decode_delta, encode_delta
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
