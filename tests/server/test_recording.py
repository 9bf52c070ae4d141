# SPDX-License-Identifier: Apache-2.0
"""Rounds as TensorBoard and MLflow have them, written by their own libraries and read back."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefl.server_stub.recording import MLflow, Recording, entries
from edgefl.wire import EvaluationInfo
from tests.server.test_pages import snapshot

MEASURED = (
    EvaluationInfo(1, "closed", 3, 3, 100, 0.5, 0.6, 0.75, 0.0, 40.0),
    EvaluationInfo(2, "open", 3, 0, 0, None, None, None, 0.0, 1.0),
)


class Known:
    """Figures that are what a test says."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def snapshot(self, *, fresh: bool = False):
        return snapshot(self.rounds, evaluations=MEASURED)


def events(folder: Path) -> dict[tuple[str, int], float]:
    """Every scalar of the event files in a folder, by name and step, as their format has them."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in sorted(folder.rglob("events.*")):
        for record in records(file.read_bytes()):
            event = Event.FromString(record)
            found.update({(v.tag, event.step): v.simple_value for v in event.summary.value})
    return found


def records(data: bytes) -> Iterator[bytes]:
    """TFRecords: length, its checksum, the bytes, theirs."""
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + size]
        data = data[16 + size :]


def test_a_server_writes_every_round_for_tensorboard(serve, make_frame, hello, tmp_path):
    server = serve(goal=1, rounds=2, process={"tensorboard": str(tmp_path / "board")})
    remote = server.remote()
    for version in range(2):
        task = remote.check_in(hello("a")).task
        frame = make_frame(version, version, meta={"loss": 1.0 - version / 4})
        remote.upload(task.round, task.assignment, frame)
        server.wait_for_version(version + 1)
    rounds, federation = server.rounds().rounds, server.status().federation
    server.terminate()

    found = events(tmp_path / "board" / federation)

    assert [found["round/loss", number] for number in (1, 2)] == [1.0, 0.75]
    assert [found["round/updates", number] for number in (1, 2)] == [1.0, 1.0]
    assert [found["round/bytes_up", number] for number in (1, 2)] == [r.bytes_up for r in rounds]


def test_what_is_written_of_rounds_and_versions():
    found = {(e.kind, e.step): e for e in entries(snapshot(3, evaluations=MEASURED))}

    assert set(found) == {("round", 1), ("round", 2), ("round", 3), ("evaluation", 1)}
    assert found["round", 2].values["loss"] == 0.5 and found["round", 2].values["times_smaller"] == 8000.0
    assert found["evaluation", 1].values["accuracy"] == 0.75 and found["evaluation", 1].at == 40.0


def test_mlflow_has_one_run_that_a_restart_goes_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    for rounds in (2, 5):
        recording = Recording(Known(rounds), [MLflow(uri)])
        recording.start()
        recording.stop()

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("edgefl").experiment_id])
    losses = client.get_metric_history(run.info.run_id, "round/loss")

    assert sorted((m.step, m.value) for m in losses) == [(n, 1 / n) for n in range(1, 6)]
    assert [m.value for m in client.get_metric_history(run.info.run_id, "evaluation/accuracy")] == [0.75]
    assert run.info.status == "FINISHED" and run.data.params["model"] == "m"


def test_a_recorder_that_fails_is_tried_again_and_loses_nothing(caplog):
    class Flaky:
        def __init__(self) -> None:
            self.written: list[int] = []
            self.failures = 2

        def begin(self, status):
            return {}

        def write(self, entry):
            if len(self.written) == 1 and self.failures:
                self.failures -= 1
                raise OSError("no route to host")
            self.written.append(entry.step)

        def finish(self):
            pass

        def close(self):
            pass

    flaky = Flaky()
    recording = Recording(Known(3), [flaky])
    for _ in range(3):
        recording.look()

    assert flaky.written == [1, 2, 3, 1]
    assert caplog.text.count("no route to host") == 1


@pytest.mark.parametrize(("option", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_library_that_is_not_here_is_named_before_anything_starts(serve, option, package, tmp_path):
    with pytest.raises(AssertionError, match=r"pip3? install"):
        serve(process={option: str(tmp_path / "x")}, blocked=[package])
