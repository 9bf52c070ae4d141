# SPDX-License-Identifier: Apache-2.0
"""The demo's data: shoulder exercises recorded by a smartwatch.

`seglearn` ships 140 recordings of 6-axis inertial data at 50 Hz: 7 exercises, 10 people, left and right side
(Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a
smartwatch", Physiological Measurement 39(7), 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import MissingDependency

WINDOW, STEP = 100, 50  # samples: two seconds, half overlapping
CHANNELS, CLASSES = 6, 7

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Recordings:
    """Windows of all recordings.

    Attributes:
        x: float32 `[windows, 100, 6]`, raw units.
        y: int32 `[windows]`, exercise 0-6.
        subject, side: int `[windows]`, who wore the watch and on which arm.
    """

    x: Array
    y: Array
    subject: Array
    side: Array

    def where(self, mask: Array) -> Recordings:
        return Recordings(self.x[mask], self.y[mask], self.subject[mask], self.side[mask])


@dataclass(frozen=True)
class Split:
    """Devices' private data and the held-out people's, normalised by the devices' statistics.

    Attributes:
        devices: name to `(x, y)`, one entry per training subject and side.
        test: `(x, y)` of the held-out subjects.
    """

    devices: dict[str, tuple[Array, Array]]
    test: tuple[Array, Array]

    def pooled(self) -> tuple[Array, Array]:
        """All devices' data in one place: what federated learning avoids, the yardstick of the demo."""
        xs, ys = zip(*self.devices.values(), strict=True)
        return np.concatenate(xs), np.concatenate(ys)


def load_recordings() -> Recordings:
    """All windows of the data set; raises MissingDependency without seglearn."""
    try:
        from seglearn.datasets import load_watch
    except ImportError as exc:
        raise MissingDependency("seglearn", "sim", "the demo's data") from exc
    raw = load_watch()
    windows, rows = [], []
    for i, recording in enumerate(raw["X"]):
        starts = range(0, len(recording) - WINDOW + 1, STEP)
        windows += [recording[s : s + WINDOW] for s in starts]
        rows += [i] * len(starts)
    return Recordings(
        np.asarray(windows, np.float32),
        np.asarray(raw["y"], np.int32)[rows],
        np.asarray(raw["subject"], np.int32)[rows],
        np.asarray(raw["side"], np.int32)[rows],
    )


def split(data: Recordings, held_out: Sequence[int]) -> Split:
    """Hold out subjects for testing; each other subject and side becomes one device."""
    testing = np.isin(data.subject, held_out)
    train, test = data.where(~testing), data.where(testing)
    mean, std = train.x.mean(axis=(0, 1)), train.x.std(axis=(0, 1))

    def normal(part: Recordings) -> tuple[Array, Array]:
        return (part.x - mean) / std, part.y

    devices = {}
    for subject in np.unique(train.subject):
        for side, word in ((0, "left"), (1, "right")):
            mine = train.where((train.subject == subject) & (train.side == side))
            if len(mine.y):
                devices[f"subject{subject:02d}-{word}"] = normal(mine)
    return Split(devices, normal(test))
