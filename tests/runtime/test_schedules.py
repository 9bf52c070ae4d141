# SPDX-License-Identifier: Apache-2.0
"""Learning rates that fall, and weights that decay, against PyTorch's and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.errors import OptionError
from edgefl.options import FitOptions
from edgefl.runtime import Trainer
from edgefl.runtime.steps import share
from edgefl.wire import Training


def data(count: int) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(0)
    return dice.normal(size=(count, 6)).astype(np.float32), dice.integers(0, 3, count).astype(np.int32)


@pytest.mark.parametrize("steps", [1, 7])
def test_schedules_are_torchs(steps: int) -> None:
    import torch

    def rates(make) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule, found = make(optimizer), []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    made = torch.optim.lr_scheduler
    cosine = rates(lambda o: made.CosineAnnealingLR(o, steps))
    linear = rates(lambda o: made.LinearLR(o, 1.0, 0.0, steps))

    np.testing.assert_allclose([share("cosine", i, steps) for i in range(steps)], cosine, atol=1e-6)
    np.testing.assert_allclose([share("linear", i, steps) for i in range(steps)], linear, atol=1e-6)
    assert [share("constant", i, steps) for i in range(steps)] == [1.0] * steps
    assert share("cosine", steps + 5, steps) > 0 and share("linear", 3, 0) == 1.0


@pytest.mark.parametrize("options", [{"epochs": 3}, {"epochs": 9, "steps": 6}, {"steps": 5, "epochs": 2}])
def test_a_schedule_ends_with_the_training(mlp: Bundle, options: dict[str, int]) -> None:
    x, y = data(2 * mlp.manifest.batch_size)
    trainer, single = Trainer(mlp, "numpy"), Trainer(mlp, "numpy")
    start = trainer.parameters()

    report = trainer.fit(x, y, FitOptions(lr=0.1, schedule="linear", seed=3, **options))

    planned = min(options.get("steps", 100), 2 * options["epochs"])
    assert report.steps == planned
    # One step of the same order has the full rate, whatever is planned after it.
    single.fit(x, y, FitOptions(lr=0.1, seed=3, steps=1))
    whole = Trainer(mlp, "numpy")
    whole.fit(x, y, FitOptions(lr=0.1, schedule="linear", seed=3, steps=1))
    for name, value in single.parameters().items():
        np.testing.assert_array_equal(whole.parameters()[name], value)
        assert not np.array_equal(value, start[name])


def test_weights_decay_towards_zero(mlp: Bundle) -> None:
    x, y = data(mlp.manifest.batch_size)
    trainer = Trainer(mlp, "numpy")
    before, (_, gradients) = trainer.parameters(), trainer.loss_and_gradients(x, y)

    trainer.fit(x, y, lr=0.1, weight_decay=0.5, mu=0.7)

    # mu pulls towards where training began, so it has nothing to pull at in the first step.
    for name, value in trainer.parameters().items():
        expected = before[name] - 0.1 * (gradients[name] + 0.5 * before[name])
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_a_rate_falls_from_round_to_round() -> None:
    training = Training.of(lr=0.2, lr_decay=0.5)

    assert [training.in_round(n).fit.lr for n in (1, 2, 4)] == [0.2, 0.1, 0.025]
    assert 0 < training.in_round(100_000).fit.lr < 1e-20
    assert Training.of().in_round(9).fit.lr is None


def test_a_decay_needs_a_rate_to_begin_with() -> None:
    with pytest.raises(OptionError, match=r"lr_decay=0\.5: .* give lr too"):
        FitOptions(lr_decay=0.5)
