# SPDX-License-Identifier: Apache-2.0
"""The seam an app calls: a round like any other device's, and a phone that decides nothing itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle
from edgefl.bundle import ArtifactData
from edgefl.bundle.publisher import key_line
from edgefl.data import load_examples
from edgefl.delta import decode_delta
from edgefl.errors import BackendFailure, BundleSignature, BundleTooLarge, DataError, ProtocolError, Refused
from edgefl.identity.keys import Ed25519Signer
from edgefl.identity.messages import NewToken
from edgefl.runtime.administration import Administration, AdminTransport
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.host import HostBackend, HostConditions, run_round, take_part
from tests.fixtures import minimal
from tests.host.doubles import NumpyEngine, Phone, fill

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODEL = str(FIXTURES / "mlp.edgefl")
TRAINING = {"fit": {"epochs": 2, "lr": 0.1}, "coding": {"density": 0.5}}
LOCAL = json.dumps({"training": TRAINING})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A device's folder with examples."""
    fill(tmp_path)
    return tmp_path


def test_a_round_without_a_server_gives_the_frame_of_any_device(home: Path) -> None:
    bundle, engine, phone = Bundle.open(MODEL), NumpyEngine(), Phone()
    frame = run_round(MODEL, str(home), engine, phone, LOCAL)
    assert engine.runs >= 10 and phone.asked >= 10
    assert phone.events[-1]["event"] == "trained" and phone.events[-1]["frame_bytes"] == len(frame)
    delta = decode_delta(frame, bundle)
    assert set(delta) == {p.name for p in bundle.schema().parameters}
    assert run_round(MODEL, str(home), NumpyEngine(), Phone(), LOCAL) == frame


def test_a_phone_that_may_not_train_gives_nothing(home: Path) -> None:
    settings = json.dumps({"training": TRAINING, "when": {"charging": True}})
    phone = Phone({"charging": False})
    assert run_round(MODEL, str(home), NumpyEngine(), phone, settings) == b""
    assert phone.events == [{"event": "paused", "reason": "The device is not charging."}]


def test_a_phone_that_is_told_to_stop_does_within_a_step(home: Path) -> None:
    phone, engine = Phone(stop_after=3), NumpyEngine()
    trials = NumpyEngine()
    run_round(MODEL, str(home), trials, Phone(stop_after=0), LOCAL)
    assert run_round(MODEL, str(home), engine, phone, LOCAL) == b""
    assert engine.runs - trials.runs <= 3
    assert phone.events[-1] == {"event": "paused", "reason": "The app was told to stop."}


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ({}, (None, None, None, None, None)),
        ({"charging": True, "battery": 80, "metered": False}, (True, 80, False, None, None)),
        ({"power_save": True, "thermal": "moderate"}, (None, None, None, True, True)),
        ({"thermal": "fair"}, (None, None, None, None, False)),
    ],
)
def test_readings_are_taken_as_the_system_words_them(
    reading: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    found = HostConditions(Phone(reading)).read()
    assert (found.charging, found.battery, found.metered, found.power_save, found.hot) == expected


def test_a_package_is_put_on_disk_as_the_folder_its_platform_takes(tmp_path: Path) -> None:
    class CoreML(NumpyEngine):
        def describe(self) -> str:
            return json.dumps({"name": "coreml", "version": "17", "target": "coreml"})

        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            paths.append(Path(artifact))
            return b""

    paths: list[Path] = []
    package = ArtifactData("coreml", "step", minimal.mlpackage(weights=b"abcd"))
    bundle = Bundle.open(MODEL).with_artifacts([package])
    for _ in range(2):  # the second time it is there
        with pytest.raises(BackendFailure, match="gives no tensors"):
            HostBackend(CoreML(), tmp_path).load(bundle, "step")({})
    assert paths[0] == paths[1] and paths[0].suffix == ".mlpackage"
    (weights,) = paths[0].rglob("weights.bin")
    assert weights.read_bytes() == b"abcd"
    assert list(tmp_path.iterdir()) == [paths[0]]


@pytest.mark.parametrize("reading", [{"battery": 200}, {"thermal": "tepid"}, {"charging": 1}])
def test_what_is_no_reading_is_refused(reading: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="gives no reading of its device"):
        HostConditions(Phone(reading)).read()


def test_settings_are_checked_before_anything_runs(home: Path) -> None:
    with pytest.raises(ProtocolError, match="lr"):
        run_round(MODEL, str(home), NumpyEngine(), Phone(), '{"training": {"fit": {"lr": -1}}}')
    with pytest.raises(DataError, match="no examples"):
        run_round(MODEL, str(home / "other"), NumpyEngine(), Phone(), "{}")


def test_an_engine_that_throws_is_a_backend_failure(home: Path) -> None:
    def broken() -> None:
        raise RuntimeError("no memory on this phone")

    with pytest.raises(BackendFailure, match="no memory on this phone"):
        run_round(MODEL, str(home), NumpyEngine(broken), Phone(), LOCAL)


def test_a_listener_that_throws_harms_nothing(home: Path) -> None:
    class Deaf(Phone):
        def notify(self, event: str) -> None:
            raise RuntimeError("the app's own affair")

    assert run_round(MODEL, str(home), NumpyEngine(), Deaf(), LOCAL)


def test_rounds_with_a_server_are_those_of_any_device(
    server: Callable[..., Any], home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An app's device and an ordinary one with the same engine bring a server to the same bits."""
    results, measured = [], []
    for kind in ("app", "device"):
        training = {"epochs": 1, "lr": 0.1, "density": 0.5}
        running = server(rounds=3, goal=1, evaluate_every=3, training=training)
        folder = tmp_path_factory.mktemp(kind)
        (folder / "examples.npz").write_bytes((home / "examples.npz").read_bytes())
        (folder / "device").write_text("one-device")
        if kind == "app":
            phone = Phone()
            made = json.loads(take_part(running.url, str(folder), NumpyEngine(), phone, '{"holdout": 0.3}'))
            assert made["finished"] and made["paused"] == "" and made["engine"].startswith("host-numpy ")
            assert [row["accepted"] for row in made["rounds"]] == [True] * 3
            assert [event["event"] for event in phone.events] == ["round"] * 3 + ["ended"]
        else:
            examples = load_examples(folder / "examples.npz")
            client = DeviceClient(running.transport(), examples, folder, backend="numpy", holdout=0.3)
            assert all(report.accepted for report in client.run())
        remote = running.remote()
        measured.append([(one.version, one.examples, one.loss) for one in remote.evaluations()])
        results.append(remote.parameters(3, Bundle.open(MODEL).schema()))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])
    assert measured[0] == measured[1] and [version for version, *_ in measured[0]] == [0, 3]


def test_a_call_ends_where_a_condition_does_not_hold(server: Callable[..., Any], home: Path) -> None:
    running = server(rounds=1, goal=1, training={"epochs": 1, "lr": 0.1})
    settings = json.dumps({"when": {"unmetered": True}})
    phone = Phone({"metered": True})
    made = json.loads(take_part(running.url, str(home), NumpyEngine(), phone, settings))
    assert made["paused"] == "The network costs money by the byte." and not made["finished"]
    made = json.loads(take_part(running.url, str(home), NumpyEngine(), Phone({"metered": False}), settings))
    assert made["finished"] and made["paused"] == ""


@pytest.mark.parametrize(
    "said",
    [
        pytest.param('{"name": "wrong", "version": "1", "target": "onnx"}', id="wrong"),
        pytest.param('{"name": "alien", "version": "1", "target": "coreml"}', id="no files"),
        pytest.param("", id="missing"),
    ],
)
def test_an_engine_that_cannot_is_replaced_by_numpy(
    server: Callable[..., Any], home: Path, said: str
) -> None:
    class Wrong(NumpyEngine):
        def describe(self) -> str:
            return said

        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            return tensors

    running = server(rounds=1, goal=1, training={"epochs": 1, "lr": 0.1})
    phone = Phone()
    made = json.loads(take_part(running.url, str(home), Wrong(), phone, "{}"))
    assert made["finished"] and made["engine"] == "numpy"
    assert [event["event"] for event in phone.events] == ["engine_refused", "round", "ended"]


def test_a_phone_enrols_with_its_token(server: Callable[..., Any], home: Path) -> None:
    running = server(rounds=2, goal=1, enrolled=True, training={"epochs": 1, "lr": 0.1})
    secret = (running.folder / "rounds.db.admin").read_text().strip()
    token = Administration(AdminTransport(running.transport(), secret)).make_token(NewToken(1)).token
    with pytest.raises(Refused):
        take_part(running.url, str(home), NumpyEngine(), Phone(), "{}")
    settings = json.dumps({"token": token, "rounds": 1})
    made = json.loads(take_part(running.url, str(home), NumpyEngine(), Phone(), settings))
    assert [row["accepted"] for row in made["rounds"]] == [True]
    made = json.loads(take_part(running.url, str(home), NumpyEngine(), Phone(), "{}"))
    assert made["finished"], "once enrolled, no token is needed"


def test_an_app_says_how_long_a_bundle_it_accepts(server: Callable[..., Any], home: Path) -> None:
    with pytest.raises(BundleTooLarge, match="is allowed 2000"):
        take_part(server(goal=1, rounds=1).url, str(home), NumpyEngine(), Phone(), '{"bundle_bytes": 2000}')


def test_an_app_insists_on_the_publisher_of_its_model(
    server: Callable[..., Any], home: Path, tmp_path: Path
) -> None:
    publisher = Ed25519Signer(bytes(range(32)))
    signed = tmp_path / "signed.edgefl"
    Bundle.open(MODEL).signed(publisher).save(signed)
    settings = json.dumps({"publisher_key": key_line(publisher.key), "rounds": 1})

    good = server(goal=1, rounds=1, bundle=str(signed))
    taken = json.loads(take_part(good.url, str(home), NumpyEngine(), Phone(), settings))
    with pytest.raises(BundleSignature, match="not signed"):
        take_part(server(goal=1, rounds=1).url, str(home), NumpyEngine(), Phone(), settings)

    assert taken["rounds"][0]["accepted"]
