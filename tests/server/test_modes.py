# SPDX-License-Identifier: Apache-2.0
"""Every mode a task can name, from a device's update to the server's next version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.delta import MODES, STATELESS_MODES, Residual
from edgefl.errors import DeltaOption, OptionError
from edgefl.runtime.residual import MAX_AGE
from edgefl.runtime.update import NMSE_PER_UPDATE, encode_update
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.settings import Settings
from edgefl.tensorfile import read_tensors
from edgefl.wire import CheckIn, Training

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
BUNDLE = Bundle.open(MODEL)
SCHEMA = BUNDLE.schema()


def vector(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).laplace(size=SCHEMA.size, scale=0.1).astype(np.float32)


def coded(delta: np.ndarray, training: Training, version: int = 0, residual=None, cohort=1, device="device"):
    return encode_update(
        delta,
        training.coding,
        seed=training.fit.seed,
        schema=SCHEMA,
        base_version=version,
        device=device,
        cohort=cohort,
        residual=residual,
        meta={"loss": 0.5, "engine": "test"},
    )


SHAPES = [{}, {"per_tensor": True}, {"whole_below": 20}, {"per_tensor": True, "whole_below": 20}]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_server_takes_every_mode(tmp_path, mode, shape):
    training = Training.of(mode=mode, density=0.1, **shape)
    coordinator = Coordinator(
        Settings(MODEL, tmp_path / "x.db", goal=1, rounds=1, training=training, downlink=0.0)
    )
    task = coordinator.check_in(CheckIn("device", SCHEMA.id.hex(), "test", 10)).task
    encoded, residual = coded(vector(), task.training)

    assert len(encoded.frame) <= task.max_bytes
    coordinator.accept(1, task.assignment, encoded.frame)
    coordinator.tick()

    made = SCHEMA.flatten(read_tensors(coordinator.shelf.parameters(1))) - SCHEMA.flatten(BUNDLE.parameters())
    np.testing.assert_allclose(made, encoded.dense(), atol=1e-6)
    assert (residual is None) == (mode in STATELESS_MODES)
    coordinator.close()


@pytest.mark.parametrize("mode", ["topk", "ternary", "subset", "unbiased"])
@pytest.mark.parametrize("budget", [120, 140])
def test_payload_is_filled_and_accepted(tmp_path, mode, budget):
    training = Training.of(mode=mode, payload=budget)
    settings = Settings(MODEL, tmp_path / "x.db", goal=1, training=training)

    encoded, _ = coded(vector(), training, cohort=100)

    assert 0.6 * budget < len(encoded.frame) <= budget <= settings.max_frame_bytes(SCHEMA)


def test_noise_a_cohort_cannot_average_comes_before_the_payload(tmp_path):
    training = Training.of(mode="unbiased", payload=85)

    encoded, _ = coded(vector(), training, cohort=1)

    assert encoded.nmse is not None and encoded.nmse <= NMSE_PER_UPDATE * (1 + 1e-6)
    settings = Settings(MODEL, tmp_path / "x.db", goal=1, training=training)
    assert 85 < len(encoded.frame) <= settings.max_frame_bytes(SCHEMA)


@pytest.mark.parametrize("cohort", [1, 2, 10])
@pytest.mark.parametrize("density", [0.001, 0.01, 0.1])
def test_devices_keep_their_noise_within_what_the_cohort_averages(cohort, density):
    encoded, _ = coded(vector(), Training.of(mode="unbiased", density=density), cohort=cohort)

    assert encoded.nmse is not None and encoded.nmse <= NMSE_PER_UPDATE * cohort * (1 + 1e-6)


def test_payload_too_small_for_a_mode_is_refused():
    with pytest.raises(DeltaOption):
        coded(vector(), Training.of(mode="topk", payload=20))


def test_warm_up_lets_the_density_fall(tmp_path):
    training = Training.of(density=0.01, warm_up=4, seed=7)

    tasks = [training.in_round(n) for n in range(1, 7)]

    assert [t.fit.seed for t in tasks] == [7, 8, 9, 10, 11, 12]
    np.testing.assert_allclose(
        [t.coding.density for t in tasks], [0.25 * 0.04 ** (n / 4) for n in range(4)] + [0.01] * 2
    )
    sent = [len(coded(vector(), t)[0].indices) for t in tasks]
    settings = Settings(MODEL, tmp_path / "x.db", training=training)
    assert sent == sorted(sent, reverse=True) and sent[0] <= settings.max_nonzeros(SCHEMA)


def test_warm_up_never_begins_below_its_end():
    assert Training.of(density=0.5, warm_up=4).in_round(1).coding.density == 0.5


def test_cohorts_share_the_subset_of_a_round_and_no_other():
    first, second = Training.of(mode="subset", density=0.1), Training.of(mode="subset", density=0.1, seed=1)

    a, b = (
        encode_update(
            vector(i), first.coding, seed=0, schema=SCHEMA, base_version=0, device=f"d{i}", cohort=9
        )[0]
        for i in (1, 2)
    )
    c = coded(vector(), second)[0]

    np.testing.assert_array_equal(a.indices, b.indices)
    assert not np.array_equal(a.indices, c.indices)


@pytest.mark.parametrize(
    ("version", "kept"),
    [(6, 1.0), (7, 0.5), (9, 0.125), (5 + MAX_AGE, 0.5 ** (MAX_AGE - 1)), (6 + MAX_AGE, 0.0), (4, 0.0)],
)
def test_residual_fades_with_every_version_missed(version, kept):
    residual = Residual(np.full(SCHEMA.size, 8.0, np.float32), SCHEMA.id, base_version=5)
    ones, training = np.ones(SCHEMA.size, np.float32), Training.of(density=1.0, residual_decay=0.5)
    sent, _ = coded(ones, training, version, residual)

    np.testing.assert_allclose(sent.dense(), 1 + 8 * kept, rtol=2e-3)


def test_residual_of_another_model_is_left_alone():
    other = Residual(np.full(SCHEMA.size, 8.0, np.float32), b"12345678", base_version=5)

    sent, _ = coded(np.ones(SCHEMA.size, np.float32), Training.of(density=1.0), 6, other)

    np.testing.assert_allclose(sent.dense(), 1, rtol=2e-3)


def test_momentum_correction_sends_more_of_what_goes_on():
    plain, corrected = Training.of(density=0.01), Training.of(density=0.01, correction=0.5)
    delta, sent = vector(), {}
    for name, training in (("plain", plain), ("corrected", corrected)):
        residual, total = None, np.zeros(SCHEMA.size)
        for version in range(6):
            encoded, residual = coded(delta, training, version, residual)
            total += encoded.dense()
        sent[name] = np.linalg.norm(total)

    assert residual.momentum is not None
    assert sent["corrected"] > 1.1 * sent["plain"]


@pytest.mark.parametrize(
    "options",
    [
        {"payload": 1000, "warm_up": 3},
        {"mode": "unbiased", "correction": 0.5},
        {"mode": "dense8", "residual_decay": 0.5},
        {"mode": "float32", "warm_up": 3},
        {"mode": "dense8", "payload": 1000},
        {"optimizer": "adam", "momentum": 0.9},
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options):
    with pytest.raises(OptionError) as caught:
        Training.of(**options)

    assert caught.value.given.keys() == options.keys()
    assert all(f"{name}={value!r}" in str(caught.value) for name, value in options.items())


@pytest.mark.parametrize("options", [{"downlink": 1.0}, {"downlink": -0.1}, {"max_examples": 0}])
def test_settings_outside_their_range_are_refused(tmp_path, options):
    with pytest.raises(OptionError):
        Settings(MODEL, tmp_path / "x.db", **options)
