# SPDX-License-Identifier: Apache-2.0
"""The demo's data: shoulder exercises recorded by a smartwatch.

`seglearn` ships 140 recordings of 6-axis inertial data at 50 Hz: 7 exercises, 10 people, left and right side
(Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the inertial signals from a
smartwatch", Physiological Measurement 39(7), 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import MissingDependency

WINDOW, STEP = 100, 50  # samples: two seconds, half overlapping
CHANNELS, CLASSES = 6, 7
MIRRORED = np.array([-1, 1, 1, 1, -1, -1], np.float32)
"""A right arm seen in a mirror is a left arm: one axis of acceleration and two of rotation change sign."""
COPIES, TILT, SCALE = 2, math.radians(12), 0.1
"""Copies of each training window with the sensor turned and scaled at random: no two people wear it alike."""

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

    def in_time(self) -> tuple[Array, Array]:
        """Masks of the windows in the first three quarters of every recording, and in the last."""
        late = np.zeros(len(self.y), bool)
        gap = np.zeros(len(self.y), bool)
        starts = np.flatnonzero(np.diff(self.y * 64 + self.subject * 2 + self.side, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(self.y)], strict=True):
            cut = stop - (stop - start) // 4
            late[cut:stop] = True
            # Neighbouring windows overlap by half: the one before the cut belongs to neither side.
            gap[cut - 1] = True
        return ~late & ~gap, late


@dataclass(frozen=True)
class Person:
    """What one person recorded, on both arms; `(x, y)` normalised by what each watch had seen by then.

    Attributes:
        early: the first three quarters of every recording.
        later: the last.
    """

    early: tuple[Array, Array]
    later: tuple[Array, Array]


@dataclass(frozen=True)
class Split:
    """Devices' private data and the held-out people's, each normalised by its own watch's statistics.

    Attributes:
        devices: name to `(x, y)`, one entry per training subject and side.
        test: `(x, y)` of the held-out subjects.
    """

    devices: dict[str, tuple[Array, Array]]
    test: tuple[Array, Array]

    def pooled(self) -> tuple[Array, Array]:
        """All devices' data in one place: what federated learning avoids, the yardstick of the demo."""
        return _joined(self.devices.values())


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
    """Hold out subjects for testing; each other subject and side becomes one device.

    What is done to the data a watch can do on its own: right arms are mirrored, each channel is normalised
    by the mean and deviation of that watch's own recordings, and training windows are varied.
    """
    devices, tests = {}, []
    for subject in np.unique(data.subject):
        for side, word in ((0, "left"), (1, "right")):
            mine = data.where((data.subject == subject) & (data.side == side))
            if not len(mine.y):
                continue
            mine = _mirror(mine)
            mean, std = mine.x.mean(axis=(0, 1)), mine.x.std(axis=(0, 1))
            if subject in held_out:
                tests.append(((mine.x - mean) / std, mine.y))
            else:
                x, y = _vary(mine, np.random.default_rng([int(subject), side]))
                devices[f"subject{subject:02d}-{word}"] = ((x - mean) / std, y)
    return Split(devices, _joined(tests))


def people(data: Recordings) -> dict[str, Person]:
    """Everyone's recordings in two parts, by time; arms and units as by `split`."""
    early, late = data.in_time()
    found = {}
    for subject in np.unique(data.subject):
        parts = []
        for side in (0, 1):
            mine = (data.subject == subject) & (data.side == side)
            if not (mine & early).any():
                continue
            first, last = _mirror(data.where(mine & early)), _mirror(data.where(mine & late))
            mean, std = first.x.mean(axis=(0, 1)), first.x.std(axis=(0, 1))
            parts.append((((first.x - mean) / std, first.y), ((last.x - mean) / std, last.y)))
        befores, afters = zip(*parts, strict=True)
        found[f"person{subject:02d}"] = Person(_joined(befores), _joined(afters))
    return found


def _joined(parts: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    xs, ys = zip(*parts, strict=True)
    return np.concatenate(xs), np.concatenate(ys)


def _mirror(part: Recordings) -> Recordings:
    right = (part.side == 1)[:, None, None]
    return replace(part, x=np.where(right, part.x * MIRRORED, part.x))


def _vary(part: Recordings, rng: np.random.Generator) -> tuple[Array, Array]:
    """The windows, then `COPIES` of each: accelerometer and gyroscope turned alike, both scaled."""
    xs = [part.x]
    for _ in range(COPIES):
        turn = _rotations(rng.normal(0.0, TILT, (len(part.y), 3)))
        scale = 1 + SCALE * rng.standard_normal((len(part.y), 1, 1))
        both = np.concatenate([part.x[..., :3] @ turn, part.x[..., 3:] @ turn], axis=-1)
        xs.append((both * scale).astype(np.float32))
    return np.concatenate(xs), np.tile(part.y, COPIES + 1)


def _rotations(angles: Array) -> Array:
    """Rotation matrices `[N, 3, 3]` for angles `[N, 3]` about x, y and z, in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    zero, one = np.zeros_like(cx), np.ones_like(cx)
    about_x = np.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], axis=1).reshape(-1, 3, 3)
    about_y = np.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], axis=1).reshape(-1, 3, 3)
    about_z = np.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
    return np.asarray(about_x @ about_y @ about_z)
