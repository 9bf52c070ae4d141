# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefl.delta import Limits, decode, encode, inspect_frame, warm_up
from edgefl.delta.bits import Array
from edgefl.delta.ints import subset
from edgefl.errors import DeltaOption, DeltaTooLarge

ID = b"schema-8"
TENSORS = [(0, 4000), (4000, 4010), (4010, 4010), (4010, 9000), (9000, 9100), (9100, 9900), (9900, 10_000)]


def update(size: int = 10_000, seed: int = 0) -> Array:
    vector: Array = (np.random.default_rng(seed).standard_t(3, size) * 1e-4).astype(np.float32)
    return vector


def code(vector: Array, **options: Any) -> Any:
    return encode(vector, schema_id=ID, base_version=1, **options)


def kinds(frame: bytes) -> list[tuple[str, int, int]]:
    return [(s.kind, s.section.start, s.section.length) for s in inspect_frame(frame).sections]


@pytest.mark.parametrize(("mode", "bits", "error"), [("dense8", 8, 1 / 127), ("dense4", 4, 1 / 7)])
def test_dense_modes_send_every_parameter_within_a_step(mode: str, bits: int, error: float) -> None:
    vector = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)

    encoded = code(vector, mode=mode, rng=0)

    assert len(encoded.frame) < 10_000 * bits / 8 + 60
    assert len(encoded.indices) == 10_000
    assert np.abs(encoded.dense() - vector).max() <= error * (1 + 1e-5)


@pytest.mark.parametrize("mode", ["dense8", "dense4", "subset"])
def test_modes_that_round_at_random_are_unbiased(mode: str) -> None:
    vector = np.random.default_rng(0).normal(size=400).astype(np.float32)
    draws = 2000

    total = sum(
        code(vector, mode=mode, density=0.25, rng=i, subset_seed=i).dense().astype(float)
        for i in range(draws)
    )

    step = {"dense8": 1, "dense4": 1, "subset": 4 * np.abs(vector).max()}[mode]
    assert np.abs(total / draws - vector).max() < 6 * step / np.sqrt(draws)
    assert abs((total / draws - vector).mean()) < 3 * step / np.sqrt(draws * 400)


def test_float32_is_lossless_and_float16_nearly() -> None:
    vector = update()

    assert np.array_equal(code(vector, mode="float32").dense(), vector)
    half = code(vector, mode="float16")
    assert np.allclose(half.dense(), vector, rtol=2**-11, atol=1e-10)
    assert len(half.frame) < 20_000


@pytest.mark.parametrize("factor", [1e-38, 1e-20, 1.0, 1e36])
def test_float16_keeps_its_precision_at_every_scale(factor: float) -> None:
    vector = np.array([1, -0.3, 0.001, 0], np.float32) * np.float32(factor)

    assert np.allclose(code(vector, mode="float16").dense(), vector, rtol=2**-11, atol=1e-38 * 2**-11)


def test_a_seeded_subset_costs_no_positions() -> None:
    vector = update(100_000)

    encoded = code(vector, mode="subset", density=0.05, subset_seed=77, rng=0)

    assert len(encoded.frame) < 5000 + 60
    assert encoded.indices.tolist() == subset(77, 100_000, 5000).tolist()
    assert not np.array_equal(encoded.indices, subset(78, 100_000, 5000))


@pytest.mark.parametrize(("length", "count"), [(1, 1), (10, 10), (1000, 1), (200_000, 7), (200_000, 150_000)])
def test_subsets_are_exact_ascending_and_spread(length: int, count: int) -> None:
    chosen = subset(12345, length, count)

    assert len(chosen) == count
    assert np.all(np.diff(chosen) > 0) and chosen[0] >= 0 and chosen[-1] < length
    if count > 1000:
        assert np.histogram(chosen, 10, (0, length))[0] == pytest.approx([count / 10] * 10, rel=0.05)


def test_per_tensor_selection_gives_every_tensor_its_share() -> None:
    vector = update()
    vector[:4000] *= 1000

    together = code(vector, tensors=TENSORS, density=0.01)
    apart = code(vector, tensors=TENSORS, density=0.01, per_tensor=True)

    assert together.indices.max() < 4000
    counts = [((apart.indices >= a) & (apart.indices < b)).sum() for a, b in TENSORS]
    assert counts == [40, 1, 0, 50, 1, 8, 1]
    assert decode(apart.frame, Limits(ID, 10_000)).values.tobytes() == apart.values.tobytes()


@pytest.mark.parametrize("mode", ["topk", "ternary", "unbiased", "subset", "dense8"])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_small_tensors_ride_along_whole(mode: str, per_tensor: bool) -> None:
    vector = update()

    encoded = code(vector, mode=mode, tensors=TENSORS, whole_below=500, per_tensor=per_tensor, rng=0)

    decoded = decode(encoded.frame, Limits(ID, 10_000)).dense()
    assert np.array_equal(decoded, encoded.dense())
    for start, stop in [(4000, 4010), (9000, 9100), (9900, 10_000)]:
        assert np.allclose(decoded[start:stop], vector[start:stop], rtol=1e-3)
    assert [k for k in kinds(encoded.frame) if k[0] == "float16"] == [
        ("float16", 4000, 10),
        ("float16", 9000, 100),
        ("float16", 9900, 100),
    ]


def test_when_every_tensor_is_small_the_update_is_whole() -> None:
    encoded = code(update(100), tensors=[(0, 50), (50, 100)], whole_below=1000)

    assert kinds(encoded.frame) == [("float16", 0, 100)]


def test_more_sections_than_a_decoder_takes_are_not_sent() -> None:
    tensors = [(2 * i, 2 * i + 2) for i in range(5000)]

    with pytest.raises(DeltaTooLarge, match="5000 sections"):
        code(update(), tensors=tensors, per_tensor=True)


def test_rounding_may_leave_nothing() -> None:
    vector = np.full(1000, 1e-3, np.float32)

    frames = [code(vector, mode="unbiased", k=1, rng=seed) for seed in range(20)]

    assert {len(e.indices) for e in frames} > {0, 1}
    assert all(np.array_equal(decode(e.frame, Limits(ID, 1000)).dense(), e.dense()) for e in frames)


@pytest.mark.parametrize("tensors", [[(0, 5)], [(1, 10)], [(0, 5), (6, 10)], [(0, 6), (5, 10)]])
def test_tensors_must_cover_the_vector(tensors: list[tuple[int, int]]) -> None:
    with pytest.raises(DeltaOption, match="cover"):
        code(np.ones(10, np.float32), tensors=tensors, per_tensor=True)


@pytest.mark.parametrize("mode", ["topk", "ternary", "unbiased", "subset"])
@pytest.mark.parametrize("budget", [200, 1000, 10_000])
def test_a_byte_budget_is_kept_and_used(mode: str, budget: int) -> None:
    vector = update(200_000)

    encoded = code(vector, mode=mode, payload_bytes=budget, rng=0)

    assert 0.9 * budget <= len(encoded.frame) <= budget


def test_a_budget_for_more_than_there_is_sends_everything() -> None:
    encoded = code(update(500), payload_bytes=1_000_000)

    assert len(encoded.indices) == 500


@pytest.mark.parametrize("options", [{"payload_bytes": 40}, {"payload_bytes": 500, "mode": "float32"}])
def test_a_budget_that_nothing_fits_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DeltaOption, match="smallest possible"):
        code(update(), **options)


def test_small_frames_lose_at_most_60_bytes_to_framing() -> None:
    for size, k in [(5000, 50), (100_000, 1000), (5_000_000, 1999)]:
        vector = np.random.default_rng(1).standard_t(1.5, size).astype(np.float32)
        for mode in ("topk", "ternary", "unbiased"):
            assert inspect_frame(code(vector, mode=mode, k=k, rng=0).frame).framing <= 60


def test_warm_up_falls_by_equal_factors() -> None:
    densities = [warm_up(i, 4, 0.01, 0.16) for i in range(6)]

    assert densities == pytest.approx([0.16, 0.08, 0.04, 0.02, 0.01, 0.01])
    assert warm_up(0, 0, 0.1) == 0.1


@pytest.mark.parametrize("wrong", [(0, 4, 0.5, 0.1), (0, 4, 0, 0.1), (-1, 4, 0.1, 0.2), (0, 4, 0.1, 2)])
def test_impossible_warm_ups_are_refused(wrong: tuple[int, int, float, float]) -> None:
    with pytest.raises(DeltaOption):
        warm_up(*wrong)
