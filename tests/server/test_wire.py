# SPDX-License-Identifier: Apache-2.0
"""Messages: what a rule lets through, what it does not, and the way there and back."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import ProtocolError
from edgefl.options import FitOptions
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Failure, Task, Training

TASK = Task(
    assignment="0" * 32,
    round=3,
    base_version=2,
    schema="0123456789abcdef",
    training=Training.of(epochs=2, lr=0.1, mode="unbiased", density=0.003),
    cohort=8,
    max_bytes=5000,
    deadline_s=12.5,
)


def test_task_survives_the_way_there_and_back():
    answer = CheckInAnswer(TASK, 0.5)

    assert CheckInAnswer.from_bytes(answer.to_bytes()) == answer


def test_answer_without_task_has_defaults():
    assert CheckInAnswer.from_bytes(b'{"task": null}') == CheckInAnswer(None, 0.0, False)


def test_unknown_fields_are_ignored():
    message = {**Accepted(True, False).to_json(), "since": "version 2"}

    assert Accepted.from_json(message) == Accepted(True, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("assignment", "0" * 31),
        ("assignment", "A" * 32),
        ("assignment", "0" * 32 + "\n"),
        ("round", 0),
        ("round", True),
        ("round", 1.0),
        ("round", "1"),
        ("base_version", -1),
        ("base_version", 2**32),
        ("schema", "../../etc/passwd"),
        ("max_bytes", 0),
        ("max_bytes", 2**60),
        ("deadline_s", float("nan")),
        ("deadline_s", float("inf")),
        ("deadline_s", -1),
        ("deadline_s", 10**400),
        ("deadline_s", None),
        ("training", None),
        ("training", []),
    ],
)
def test_task_refuses(field, value):
    with pytest.raises(ProtocolError, match=f"Task.{field} is"):
        Task.from_json({**TASK.to_json(), field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("optimizer", "lion"),
        ("clip_norm", 0),
        ("lr", 0.0),
        ("lr", "0.1"),
        ("momentum", 1.0),
        ("mu", -1),
    ],
)
def test_training_refuses(field, value):
    with pytest.raises(ProtocolError, match=rf"Task\.training\.fit\.{field} is"):
        Task.from_json({**TASK.to_json(), "training": {"fit": {field: value}}})


@pytest.mark.parametrize(
    ("coding", "said"),
    [
        ({"mode": "sparse"}, r"Task\.training\.coding\.mode is"),
        ({"density": 0}, r"Task\.training\.coding\.density is"),
        ({"payload": "20kB"}, r"Task\.training\.coding\.payload is"),
        ({"payload": 900, "warm_up": 3}, r"Task\.training\.coding: payload=900 with warm_up=3"),
    ],
)
def test_coding_refuses(coding, said):
    with pytest.raises(ProtocolError, match=said):
        Task.from_json({**TASK.to_json(), "training": {"coding": coding}})


def test_everything_that_decides_training_travels():
    fit = FitOptions(
        epochs=3, steps=7, lr=0.2, lr_decay=0.9, schedule="cosine", weight_decay=0.01, optimizer="adam",
        mu=0.1, clip_norm=2.5, seed=9,
    )  # fmt: skip

    travelled = Task.from_bytes(replace(TASK, training=Training(fit)).to_bytes()).training.fit

    assert travelled == fit
    assert all(getattr(fit, f.name) != f.default for f in fields(fit) if f.name != "momentum")


@pytest.mark.parametrize("device", ["", "a" * 65, "a b", "../a", "ä", "a/b", None, 1])
def test_device_names_are_plain(device):
    with pytest.raises(ProtocolError, match=r"CheckIn\.device"):
        CheckIn(device, "0" * 16, "numpy", 1)


def test_missing_fields_are_named():
    with pytest.raises(ProtocolError, match="CheckIn lacks engine, examples"):
        CheckIn.from_bytes(b'{"device": "a", "schema": "0123456789abcdef"}')


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b'{"a": NaN}', b"[" * 5000, b'{"a":1,"a":2}']
)
def test_what_is_not_a_json_object_is_refused(body):
    with pytest.raises(ProtocolError):
        Failure.from_bytes(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(TASK.to_json(), JSON)))
def test_any_json_is_a_task_or_a_protocol_error(changes):
    try:
        task = Task.from_json({**TASK.to_json(), **changes})
    except ProtocolError:
        return
    assert Task.from_json(json.loads(task.to_bytes())) == task
