# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl.delta import MODES, Limits, decode, encode
from edgefl.delta import coders as coders_module
from edgefl.delta.bits import Array
from edgefl.errors import DeltaMeta, DeltaOption, NotFinite

ID = b"schema-8"
VECTORS = arrays(np.float32, st.integers(1, 400), elements=st.floats(-(2.0**100), 2.0**100, width=32))
PLAIN = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def heavy_tailed(size: int, seed: int = 0) -> Array:
    """Values in clusters, as real updates have them."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.lognormal(0, 2, -(-size // 50)), 50)[:size]
    values: Array = (rows * rng.standard_t(3, size)).astype(np.float32)
    return values


def limits(vector: Array) -> Limits:
    return Limits(ID, vector.size)


@PLAIN
@given(VECTORS, st.sampled_from(sorted(MODES)), st.floats(0.001, 1))
def test_the_decoder_sees_exactly_what_the_encoder_says(
    plain_decode: Callable[[bytes], dict[int, float]], vector: Array, mode: str, density: float
) -> None:
    encoded = encode(vector, schema_id=ID, base_version=1, mode=mode, density=density, rng=0)

    update = decode(encoded.frame, limits(vector))

    assert update.indices.tolist() == encoded.indices.tolist()
    assert update.values.tobytes() == encoded.values.tobytes()
    assert plain_decode(encoded.frame) == dict(
        zip(update.indices.tolist(), update.values.tolist(), strict=True)
    )


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("allowed", [(), ("deflate",), ("deflate", "zstd")])
def test_frames_of_clustered_values_decode_by_the_plain_reader_too(
    plain_decode: Callable[[bytes], dict[int, float]], density: float, allowed: tuple[str, ...]
) -> None:
    vector = heavy_tailed(20_000)

    encoded = encode(vector, schema_id=ID, base_version=1, density=density, coders=allowed)

    expected = dict(zip(encoded.indices.tolist(), encoded.values.tolist(), strict=True))
    assert plain_decode(encoded.frame) == expected
    assert decode(encoded.frame, limits(vector)).values.tobytes() == encoded.values.tobytes()


def test_topk_keeps_the_largest_within_one_step() -> None:
    vector = heavy_tailed(50_000)

    encoded = encode(vector, schema_id=ID, base_version=1, k=500)

    threshold = np.sort(np.abs(vector))[-500]
    assert len(encoded.indices) == 500
    assert np.abs(vector[encoded.indices]).min() == threshold
    assert np.abs(encoded.values - vector[encoded.indices]).max() <= threshold * (1 + 1e-6)


def test_ternary_has_one_magnitude_the_mean() -> None:
    vector = heavy_tailed(5000)

    encoded = encode(vector, schema_id=ID, base_version=1, k=100, mode="ternary")

    kept = np.abs(vector[encoded.indices]).astype(np.float64)
    assert np.unique(np.abs(encoded.values)).tolist() == [np.float32(kept.mean())]
    assert np.array_equal(np.sign(encoded.values), np.sign(vector[encoded.indices]))


def test_what_is_already_on_the_grid_is_kept_exactly() -> None:
    vector = np.zeros(1000, np.float32)
    vector[[3, 50, 51, 999]] = [0.5, -1.0, 2.5, -0.5]

    encoded = encode(vector, schema_id=ID, base_version=0, density=1.0)

    assert np.array_equal(encoded.dense(), vector)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_nothing_is_an_update_too(mode: str) -> None:
    vector = np.zeros(100, np.float32)

    encoded = encode(vector, schema_id=ID, base_version=3, mode=mode)

    assert len(encoded.frame) == 32
    assert np.array_equal(decode(encoded.frame, limits(vector)).dense(), vector)


def test_an_update_of_no_parameters_is_possible() -> None:
    encoded = encode(np.empty(0, np.float32), schema_id=ID, base_version=3)

    assert decode(encoded.frame, Limits(ID, 0)).indices.tolist() == []


def test_the_same_input_gives_the_same_bytes() -> None:
    vector = heavy_tailed(30_000)

    frames = {encode(vector, schema_id=ID, base_version=1, mode="unbiased", rng=5).frame for _ in range(3)}

    assert len(frames) == 1


def test_a_frame_carries_version_flag_and_metadata() -> None:
    vector = heavy_tailed(1000)
    meta = {"loss": 0.25, "name": "ä"}

    update = decode(
        encode(vector, schema_id=ID, base_version=41, mode="unbiased", meta=meta, rng=1).frame, limits(vector)
    )

    assert (update.base_version, update.unbiased, dict(update.meta)) == (41, True, meta)


def test_thorough_frames_are_never_larger_and_say_the_same() -> None:
    vector = heavy_tailed(100_000)

    fast = encode(vector, schema_id=ID, base_version=1)
    thorough = encode(vector, schema_id=ID, base_version=1, thorough=True)

    assert len(thorough.frame) <= len(fast.frame)
    assert thorough.values.tobytes() == fast.values.tobytes()


def test_without_zstandard_frames_are_made_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders_module, "zstandard", lambda: None)
    vector = heavy_tailed(20_000)

    encoded = encode(vector, schema_id=ID, base_version=1)

    assert len(encoded.frame) < 8 * len(encoded.indices) / 4
    assert np.array_equal(decode(encoded.frame, limits(vector)).dense(), encoded.dense())


def test_an_update_is_added_with_its_weight() -> None:
    vector = heavy_tailed(1000)
    encoded = encode(vector, schema_id=ID, base_version=1)
    total = np.ones(1000, np.float64)

    decode(encoded.frame, limits(vector)).add_to(total, 0.5)

    assert np.allclose(total, 1 + 0.5 * encoded.dense(), rtol=1e-6)


@pytest.mark.parametrize(("mode", "density"), [("topk", 0.01), ("topk", 0.1), ("unbiased", 0.01)])
def test_independent_values_cost_at_most_1_5_percent_over_their_entropy(mode: str, density: float) -> None:
    vector = np.random.default_rng(0).laplace(size=1_000_000).astype(np.float32)

    encoded = encode(
        vector, schema_id=ID, base_version=1, mode=mode, density=density, rng=0, coders=("deflate",)
    )

    count = len(encoded.indices)
    share = count / vector.size
    positions = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) / share
    levels = np.unique(np.abs(encoded.values), return_counts=True)[1] / count
    bound = positions - levels @ np.log2(levels) + 1
    assert 8 * len(encoded.frame) / count < 1.015 * bound


@pytest.mark.parametrize(
    "options",
    [
        {"density": 0},
        {"density": 1.5},
        {"density": float("nan")},
        {"k": 0},
        {"mode": "best"},
        {"base_version": -1},
        {"base_version": 1 << 32},
        {"schema_id": b"short"},
    ],
)
def test_impossible_requests_are_refused(options: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"schema_id": ID, "base_version": 0} | options
    with pytest.raises(DeltaOption):
        encode(np.ones(10, np.float32), **arguments)


@pytest.mark.parametrize("vector", [np.ones(4), np.ones((2, 2), np.float32)])
def test_only_flat_float32_is_encoded(vector: Array) -> None:
    with pytest.raises(DeltaOption, match="float32"):
        encode(vector, schema_id=ID, base_version=0)


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {"x": object()}, {"x": "a" * 5000}])
def test_metadata_that_cannot_travel_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(DeltaMeta):
        encode(np.ones(4, np.float32), schema_id=ID, base_version=0, meta=meta)


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_updates_that_are_not_finite_are_never_sent(mode: str, bad: float) -> None:
    vector = np.ones(200_000, np.float32)
    vector[70_000] = bad

    with pytest.raises(NotFinite, match="index 70000"):
        encode(vector, schema_id=ID, base_version=0, mode=mode)
