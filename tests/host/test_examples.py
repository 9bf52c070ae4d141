# SPDX-License-Identifier: Apache-2.0
"""An app's examples: added one by one, sealed, forgotten, trained from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import DataError, StoreError
from edgefl.runtime.host import add_example, collect_for, forget_examples, run_round
from edgefl.tensorfile import write_tensors
from tests.host.doubles import NumpyEngine, Phone

MODEL = str(Path(__file__).parents[1] / "fixtures" / "mlp.edgefl")
LOCAL = json.dumps({"training": {"fit": {"epochs": 1, "lr": 0.1}, "coding": {"density": 0.5}}})


class Reversed:
    """What stands for a keystore here: it seals nothing, it only must be asked."""

    def __init__(self) -> None:
        self.asked = 0

    def seal(self, plain: bytes, about: bytes) -> bytes:
        self.asked += 1
        return bytes(reversed(plain)) + about

    def open(self, sealed: bytes, about: bytes) -> bytes:
        if not sealed.endswith(about):
            raise ValueError("sealed for something else")
        return bytes(reversed(sealed[: len(sealed) - len(about)]))


def example(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    return write_tensors({"x": rng.normal(size=6).astype(np.float32), "y": np.array(seed % 3, np.int32)})


@pytest.mark.parametrize("cipher", [None, Reversed()])
def test_examples_are_kept_trained_from_and_forgotten(tmp_path: Path, cipher: Reversed | None) -> None:
    home = str(tmp_path)
    collect_for(home, MODEL, cipher)
    assert all(add_example(home, example(seed), f"walk {seed % 2}", cipher) for seed in range(12))
    assert not add_example(home, example(3), "walk 1", cipher), "the same once more"
    before = run_round(MODEL, home, NumpyEngine(), Phone(), LOCAL, cipher)
    assert forget_examples(home, "walk 1", cipher) == 6
    after = run_round(MODEL, home, NumpyEngine(), Phone(), LOCAL, cipher)
    assert before and after and before != after
    if cipher:
        assert cipher.asked >= 12
        with pytest.raises(StoreError):
            add_example(home, example(20), "")


def test_what_is_no_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        add_example(str(tmp_path), example(1), "")
    collect_for(str(tmp_path), MODEL)
    with pytest.raises(DataError, match=r"the example holds arrays .*expected 'x' and 'y'"):
        add_example(str(tmp_path), write_tensors({"x": np.zeros(6, np.float32)}), "")
    with pytest.raises(DataError):
        add_example(str(tmp_path), write_tensors({"x": np.zeros(7, np.float32), "y": np.array(1)}), "")


def test_a_keystore_that_throws_is_a_store_error(tmp_path: Path) -> None:
    class Locked(Reversed):
        def seal(self, plain: bytes, about: bytes) -> bytes:
            raise RuntimeError("the phone is locked")

    with pytest.raises(StoreError, match="the phone is locked"):
        collect_for(str(tmp_path), MODEL, Locked())
        add_example(str(tmp_path), example(1), "", Locked())
