# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import OptionError
from edgefl.options import FitOptions
from edgefl.runtime import Program, Trainer, open_backend
from edgefl.runtime.backends.base import Engine, Placed
from edgefl.runtime.backends.proving import proving
from edgefl.runtime.feature_cache import FeatureCache, example_digests
from edgefl.runtime.learner import TrainerLearner

pytestmark = pytest.mark.device
SUBJECT = "ab" * 16


class Model:
    """Doubles its input, and counts for how many examples."""

    def __init__(self) -> None:
        self.examples = 0

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.examples += len(inputs["x"])
        return {"h": inputs["x"] * 2, "s": inputs["x"].sum(axis=1)}


def examples(count: int, seed: int = 0, width: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)}


def assert_right(made: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(made["h"], inputs["x"] * 2)
    np.testing.assert_array_equal(made["s"], inputs["x"].sum(axis=1))


def segments(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.features"))


def test_features_are_computed_once_per_example(tmp_path: Path) -> None:
    model, inputs = Model(), examples(10)

    first = FeatureCache(tmp_path).through(SUBJECT, inputs, model)
    again = FeatureCache(tmp_path).through(SUBJECT, inputs, model)

    assert model.examples == 10
    assert (first[1], again[1]) == (0, 10)
    for made, _ in (first, again):
        assert_right(made, inputs)


def test_only_new_examples_are_computed(tmp_path: Path) -> None:
    model, inputs, cache = Model(), examples(10), FeatureCache(tmp_path)
    cache.through(SUBJECT, {"x": inputs["x"][2:7]}, model)
    shuffled = {"x": inputs["x"][::-1].copy()}

    made, known = cache.through(SUBJECT, shuffled, model)

    assert (model.examples, known) == (10, 5)
    assert_right(made, shuffled)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_examples_may_come_more_than_once(rows: list[int]) -> None:
    import tempfile

    inputs = {"x": examples(6)["x"][rows]}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            assert_right(FeatureCache(folder).through(SUBJECT, inputs, Model())[0], inputs)


def test_features_of_another_graph_are_its_own(tmp_path: Path) -> None:
    model, cache = Model(), FeatureCache(tmp_path)
    cache.through(SUBJECT, examples(4), model)

    assert cache.through("cd" * 16, examples(4), model)[1] == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "renamed"])
def test_damaged_segments_are_made_again(tmp_path: Path, damage: str) -> None:
    inputs, cache = examples(8), FeatureCache(tmp_path)
    cache.through(SUBJECT, inputs, Model())
    (file,) = segments(tmp_path)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-5])
    elif damage == "flipped":
        data[-3] ^= 1
        file.write_bytes(data)
    elif damage == "emptied":
        file.write_bytes(b"")
    else:
        file.rename(file.with_name("00" * 16 + ".features"))

    made, known = cache.through(SUBJECT, inputs, Model())

    assert known == 0
    assert_right(made, inputs)
    assert cache.through(SUBJECT, inputs, Model())[1] == 8
    assert len(segments(tmp_path)) == 1


def test_the_limit_holds_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    cache, model = FeatureCache(tmp_path), Model()
    for seed in range(4):
        cache.through(SUBJECT, examples(50, seed, 300), model)
    each = segments(tmp_path)[0].stat().st_size
    for age, seed in enumerate((1, 3, 0, 2)):  # 1 is the longest unused
        before = {f: f.stat().st_mtime_ns for f in segments(tmp_path)}
        cache.through(SUBJECT, examples(50, seed, 300), model)
        used = [f for f in segments(tmp_path) if f.stat().st_mtime_ns != before[f]]
        os.utime(used[0], (age + 1, age + 1))

    limit = 4 * each + 2000
    small = FeatureCache(tmp_path, limit)
    small.through(SUBJECT, examples(50, 9, 300), model)

    assert sum(f.stat().st_size for f in segments(tmp_path)) <= limit
    known = [small.through(SUBJECT, examples(50, seed, 300), Model())[1] for seed in (3, 0, 2, 9)]
    assert known == [50, 50, 50, 50]


def test_more_than_the_limit_is_not_thrashed(tmp_path: Path) -> None:
    inputs, limit = examples(1000), 8000
    cache, first, second = FeatureCache(tmp_path, limit), Model(), Model()
    cache.through(SUBJECT, inputs, first)

    made, known = cache.through(SUBJECT, inputs, second)

    assert_right(made, inputs)
    assert 0 < known == 1000 - second.examples
    assert sum(f.stat().st_size for f in segments(tmp_path)) <= limit


def test_a_limit_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    made, _ = FeatureCache(tmp_path, 0).through(SUBJECT, examples(3), Model())

    assert_right(made, examples(3))
    assert segments(tmp_path) == []
    with pytest.raises(OptionError, match="limit_bytes is -1"):
        FeatureCache(tmp_path, -1)


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    made, known = FeatureCache(tmp_path / "file").through(SUBJECT, examples(3), Model())

    assert known == 0
    assert_right(made, examples(3))


def test_digests_depend_on_everything_an_example_is() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    kinds = [
        {"x": x},
        {"z": x},
        {"x": x.reshape(1, 3, 2)},
        {"x": x.view(np.int32)},
        {"x": x, "m": np.zeros((1, 1), np.float32)},
        {"x": np.nextafter(x, 9, dtype=np.float32)},
    ]

    assert len({example_digests(inputs)[0] for inputs in kinds}) == len(kinds)
    assert example_digests({"x": np.asfortranarray(np.vstack([x, x]))}) == 2 * example_digests({"x": x})


# -- in training


class Counting(Engine):
    """A backend that counts how often each graph runs."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.calls = inner, dict[str, int]()
        self.name, self.target, self.version = inner.name, inner.target, inner.version

    def proved(self, bundle: Bundle) -> Counting:
        """The same after its trials, which do not count."""
        for kind in ("features", "step"):
            proving(self).prove(bundle, kind)
        self.calls.clear()
        return self

    def load(self, bundle: Bundle, kind: str) -> Program:
        program = self._inner.load(bundle, kind)

        def counted(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.calls[kind] = self.calls.get(kind, 0) + 1
            made: dict[str, np.ndarray] = program(feeds)
            return made

        return Placed(counted, program.placement)


def data(bundle: Bundle, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return random.normal(size=(count, 6)).astype(np.float32), random.integers(0, 3, count).astype(np.int32)


def test_later_epochs_and_fits_touch_only_what_is_trained(head: Bundle, backend: str, tmp_path: Path) -> None:
    counting = Counting(open_backend(head, backend)).proved(head)
    plain = Trainer(head, backend=backend)
    plain.fit(*data(head), epochs=3)
    for start in range(3):
        trainer = Trainer(head, backend=counting, features=FeatureCache(tmp_path))
        report = trainer.fit(*data(head), epochs=3)
        assert report.features_cached == (24 if start else 0)

    assert counting.calls == {"features": 3, "step": 3 * 9}
    for name, value in plain.parameters().items():
        np.testing.assert_array_equal(trainer.parameters()[name], value)


def test_a_device_keeps_features_over_rounds_and_restarts(head: Bundle, tmp_path: Path) -> None:
    counting = Counting(open_backend(head, "numpy")).proved(head)
    options = FitOptions(epochs=1, lr=0.1)
    for _ in range(2):
        learner = TrainerLearner(
            head, Examples(*data(head)), backend=counting, features=FeatureCache(tmp_path)
        )
        for _ in range(2):
            learner.learn({n: v for n, v in head.parameters().items() if n.startswith("head")}, options)

    assert counting.calls["features"] == 3
    assert counting.calls["step"] == 4 * 3
