# SPDX-License-Identifier: Apache-2.0
"""Messages: what a rule lets through, what it does not, and the way there and back."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import ProtocolError
from edgefl.options import FitOptions, WhenOptions
from edgefl.strictjson import canonical
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Decline, Failure, Task, Training

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


def test_bytes_of_messages_are_these_and_say_no_default():
    coded = '{"density":0.003,"mode":"unbiased"}'
    task = (
        f'{{"assignment":"{"0" * 32}","base_version":2,"cohort":8,"deadline_s":12.5,"max_bytes":5000,'
        f'"round":3,"schema":"0123456789abcdef","training":{{"coding":{coded},"fit":{{"epochs":2,"lr":0.1}}}}}}'
    )
    bytes_of = {
        CheckIn("a", "0123456789abcdef", "numpy", 3): (
            '{"device":"a","engine":"numpy","examples":3,"schema":"0123456789abcdef"}'
        ),
        CheckInAnswer(TASK): f'{{"task":{task}}}',
        CheckInAnswer(retry_after_s=2.5): '{"retry_after_s":2.5}',
        CheckInAnswer(): "{}",
        replace(TASK, training=Training()): task.replace(
            f'{{"coding":{coded},"fit":{{"epochs":2,"lr":0.1}}}}', "{}"
        ),
        Training(when=WhenOptions(battery=20)): '{"when":{"battery":20}}',
        Accepted(True, False): '{"accepted":true,"duplicate":false}',
        Failure("unknown-round"): '{"reason":"unknown-round"}',
        Decline("hot"): '{"reason":"hot"}',
    }

    assert {message: message.to_bytes().decode() for message in bytes_of} == bytes_of
    assert all(type(message).from_bytes(said.encode()) == message for message, said in bytes_of.items())


def test_messages_of_older_peers_that_say_every_default_read_the_same():
    for message in (TASK, CheckInAnswer(TASK), CheckInAnswer(), CheckIn("a", "0" * 16, "numpy", 3)):
        assert type(message).from_bytes(canonical(message.to_json())) == message


def test_defaults_are_part_of_version_1():
    """A peer of any release fills them in, so none of them may ever change."""
    assert Training().to_json() == {
        "fit": {
            "epochs": 1, "steps": 0, "lr": None, "lr_decay": 1.0, "schedule": "constant",
            "weight_decay": 0.0, "momentum": 0.0, "optimizer": "sgd",
            "algorithm": "fedavg", "alpha": 0.1, "mu": 0.0, "clip_norm": None,
            "validation": 0.0, "patience": 0, "seed": 0,
        },
        "coding": {
            "mode": "topk", "density": 0.01, "payload": 0, "per_tensor": False, "whole_below": 0,
            "warm_up": 0, "correction": 0.0, "residual_decay": 1.0,
        },
        "when": {
            "charging": False, "battery": 0, "unmetered": False, "full_power": False, "busy": None,
            "temperature": None, "cool": False, "free_storage": 0, "free_memory": 0, "window": None,
            "new_examples": 0, "per_day": 0,
        },
    }  # fmt: skip


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
        algorithm="feddyn", alpha=0.3, mu=0.1, clip_norm=2.5, validation=0.2, patience=3, seed=9,
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
