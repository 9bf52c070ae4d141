# SPDX-License-Identifier: Apache-2.0
"""Strangers at the server's door: whatever they send, it answers everybody, and none of its answers is a 500.

    make fuzz                                       # all three, ten minutes each
    python -m benchmarks.fuzz api [--seconds 600]   # requests made from the server's own OpenAPI document
    python -m benchmarks.fuzz bodies                # frames and JSON, mutated
    python -m benchmarks.fuzz connections           # half requests, slow ones, nonsense

`api` runs schemathesis, which `make fuzz` installs into `.venv-fuzz`. Each starts two servers of its own, one
open and one of enrolled devices. A finding is an answer of 500 and more, none in 30 seconds, a traceback in
the server's log, or a server that has grown by more than 200 MB; the exit status is 1 then. `--seed` repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.server import Process, model
from edgefl.bundle import Bundle
from edgefl.delta import encode
from edgefl.identity import authorization
from edgefl.identity.messages import NewToken
from edgefl.runtime.administration import Administration, AdminTransport
from edgefl.runtime.identity import Credential, enrol
from edgefl.runtime.transport import HttpTransport
from edgefl.wire import CheckIn, CheckInAnswer

LATE_S, GROWTH_MB, WORKERS = 30.0, 200.0, 4
LOOK_S = 1.0
SCHEMATHESIS = Path(".venv-fuzz/bin/schemathesis")
SIZE = 2000
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"
ROUTES = (
    ("POST", "/v1/check-in"),
    ("POST", "/v1/enrol"),
    ("POST", "/v1/admin/tokens"),
    ("PUT", "/v1/rounds/1/declines/" + "0" * 32),
    ("PUT", "/v1/rounds/1/updates/" + "0" * 32),
    ("PUT", "/v1/evaluations/0/" + "0" * 32),
)
Answer = tuple[int, bytes]


class Target:
    """A server to be tried, and what was found."""

    def __init__(self, folder: Path, enrolled: bool) -> None:
        folder.mkdir()
        self.bundle = model(SIZE)
        self.bundle.save(folder / "model.edgefl")
        options = {
            "bundle": str(folder / "model.edgefl"),
            "database": str(folder / "rounds.db"),
            "density": 0.1,
            "goal": 1000,
            "rounds": 1_000_000,
            "long_poll_s": 0.1,
            "retry_after_s": 0.05,
            "per_address": 0.0,
            "per_device": 0.0,
            "evaluate_every": 1,
            "enrolled": enrolled,
        }
        self.name = "enrolled" if enrolled else "open"
        self._log, self._process = folder / "log.txt", Process(folder, options)
        self.url, self._began_mb = self._process.url, self._process.peak_mb()
        self.admin = (folder / "rounds.db.admin").read_text().strip() if enrolled else None
        self._credential = self._enrolled(folder) if enrolled else None
        self.answers: Counter[int] = Counter()
        self.findings: list[str] = []

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _enrolled(self, folder: Path) -> Credential:
        with HttpTransport(self.url) as transport:
            administration = Administration(AdminTransport(transport, self.admin or ""))
            return enrol(transport, administration.make_token(NewToken()).token, folder / "device")

    def credentials(self, method: str, path: str, body: bytes, dice: random.Random) -> dict[str, str]:
        """None, nonsense, the administrator's, or a good signature of an enrolled device."""
        claim = f"EDGEFL1 {dice.getrandbits(64):016x}.{int(time.time())}.AAAAAAAA.{'A' * 43}"
        kinds = ["", claim, "Bearer " + "x" * dice.randrange(200), "EDGEFL1 " + "." * dice.randrange(9)]
        if (mine := self._credential) is not None:
            good = authorization(mine.signer, mine.federation, method, path, body, int(time.time()))
            kinds += [f"Bearer {self.admin}", good, good, good, good]
        chosen = dice.choice(kinds)
        return {"authorization": chosen} if chosen else {}

    def send(self, method: str, path: str, body: bytes, dice: random.Random) -> Answer | None:
        """Ask with some credentials."""
        return self.ask(method, path, body, **self.credentials(method, path, body, dice))

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer | None:
        """The answer, which is looked at; None where the server hung up, as it may on nonsense."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LATE_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = answer.status, answer.read()
        except TimeoutError:
            self.findings.append(f"{method} {path}: no answer in {LATE_S:g} s to {body[:200]!r}")
            return None
        except (OSError, http.client.HTTPException):
            self.answers[0] += 1
            return None
        finally:
            connection.close()
        self.answers[found[0]] += 1
        if found[0] >= 500:
            self.findings.append(f"{method} {path}: {found[0]} {found[1][:200]!r} to {body[:200]!r}")
        return found

    def look(self) -> None:
        """Ask as an honest device does: whatever others do, it is answered."""
        if self.ask("GET", "/healthz") is None:
            self.findings.append("the server did not answer an honest request")

    def end(self) -> None:
        """Stop it, and read what it has to say."""
        grown = 0.0
        if self._process.died():
            self.findings.append("the server died")
        elif (grown := self._process.peak_mb() - self._began_mb) > GROWTH_MB:
            self.findings.append(f"the server grew by {grown:.0f} MB")
        self._process.stop()
        said = self._log.read_text(errors="replace")
        if "Traceback" in said:
            self.findings.append("a traceback in the log: " + said[said.index("Traceback") :][:3000])
        print(
            f"{self.name}: {sum(self.answers.values())} requests, {grown:.0f} MB more at most; answers "
            + ", ".join(f"{count} of {status or 'none'}" for status, count in sorted(self.answers.items()))
        )


# -- api

HOOKS = """
import schemathesis
schemathesis.serializer.alias("application/vnd.edgefl.update", "application/octet-stream")
"""


def api(target: Target, until: float, dice: random.Random) -> None:
    """schemathesis on the OpenAPI document; as an administrator where there is one."""
    tool = Path(os.environ.get("SCHEMATHESIS", SCHEMATHESIS)).absolute()
    if not tool.exists():
        raise SystemExit(f"{tool} is missing: `make fuzz` installs it, SCHEMATHESIS names another")
    seconds = max(1, int(until - time.monotonic()))
    command = [str(tool), "run", f"{target.url}/openapi.json", "--max-time", str(seconds)]
    command += [
        "--checks",
        CHECKS,
        "--request-timeout",
        str(int(LATE_S)),
        "--seed",
        str(dice.getrandbits(32)),
    ]
    command += ["--continue-on-failure", "--no-color", "--workers", "2", "--suppress-health-check", "all"]
    if target.admin:
        command += ["--header", f"authorization: Bearer {target.admin}"]
    with tempfile.TemporaryDirectory() as folder, honest(target):
        (Path(folder) / "hooks.py").write_text(HOOKS)
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds + 600,
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": folder},
        )
    print(ran.stdout[-1500:])
    if ran.returncode:
        target.findings.append(f"schemathesis: {ran.stdout[-6000:]}{ran.stderr[-2000:]}")


# -- bodies


def bodies(target: Target, until: float, dice: random.Random) -> None:
    """Mutated JSON to every route that takes some, mutated frames to places the server has given."""

    def one(seed: int) -> None:
        mine = random.Random(seed)
        random_frame = frame(target.bundle, mine)
        while time.monotonic() < until:
            if mine.random() < 0.5:
                method, path = mine.choice(ROUTES)
                target.send(method, path, mutated(json_body(target.bundle, mine), mine), mine)
                continue
            path = place(target, mine)
            data = mutated(random_frame, mine)
            target.send("PUT", path, repaired(data) if mine.random() < 0.7 else data, mine)

    crowd(one, dice, target)


def json_body(bundle: Bundle, dice: random.Random) -> bytes:
    """A message that some route takes."""
    schema = bundle.schema().id.hex()
    messages: list[dict[str, object]] = [
        CheckIn(f"d{dice.randrange(50)}", schema, "none", dice.randrange(1, 100)).to_json(),
        {"token": "A" * 43, "scheme": "hmac", "key": "A" * 43, "label": "x"},
        {"uses": 3, "days": 2.0, "label": "y"},
        {"reason": "no"},
        {"examples": 3, "loss": 0.5, "accuracy": 0.5},
    ]
    message = dice.choice(messages)
    for name in [name for name in message if dice.random() < 0.2]:
        message[name] = dice.choice(
            [None, True, -1, 1e308, 2**70, "", "\ud800", "x" * 70_000, [[]], {"": {}}, "\x00\x1b[2J\n"]
        )
    return json.dumps(message).encode()


def frame(bundle: Bundle, dice: random.Random) -> bytes:
    """An update as a device codes it."""
    vector = np.random.default_rng(dice.getrandbits(32)).normal(size=SIZE).astype(np.float32)
    return encode(
        vector, schema_id=bundle.schema().id, base_version=0, density=0.05, meta={"loss": 1.0}
    ).frame


def place(target: Target, dice: random.Random) -> str:
    """The path of an update: mostly of a place the server has given."""
    hello = CheckIn(f"f{dice.randrange(800)}", target.bundle.schema().id.hex(), "none", 3)
    found = target.send("POST", "/v1/check-in", hello.to_bytes(), dice)
    task = CheckInAnswer.from_bytes(found[1]).task if found and found[0] == 200 else None
    number, assignment = (task.round, task.assignment) if task else (1, f"{dice.getrandbits(128):032x}")
    return f"/v1/rounds/{number}/updates/{assignment}"


def mutated(data: bytes, dice: random.Random) -> bytes:
    """The same with bytes changed, cut out, doubled, or set to values that are wrong somewhere."""
    made = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 2, 4, 16))):
        at, kind = dice.randrange(len(made) + 1), dice.randrange(5)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del made[at : at + dice.randrange(1, 40)]
        elif kind == 2:
            made[at:at] = made[at : at + dice.randrange(1, 40)]
        elif kind == 3:
            made[at : at + 4] = dice.choice(
                (b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x00\x80\x7f")
            )
        else:
            made[at:at] = dice.randbytes(dice.randrange(1, 9))
    return bytes(made)


def repaired(data: bytes) -> bytes:
    """With magic, length and checksum made right, so that damage reaches what lies behind them."""
    if len(data) < 32:
        return data
    body = b"EFLU\x01" + data[5:24] + len(data).to_bytes(4, "little") + data[28:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


# -- connections


def connections(target: Target, until: float, dice: random.Random) -> None:
    """Requests that end half-way, come byte by byte, never end, or are none; answers nobody reads."""

    def one(seed: int) -> None:
        mine = random.Random(seed)
        while time.monotonic() < until:
            with contextlib.suppress(OSError), contextlib.ExitStack() as held:
                for _ in range(mine.choice((1, 5, 40))):
                    line = socket.create_connection(("127.0.0.1", target.port), timeout=LATE_S)
                    held.callback(line.close)
                    whole = request(target.bundle, mine)
                    for piece in pieces(whole[: mine.randrange(len(whole) + 1)], mine):
                        line.sendall(piece)
                target.answers[0] += 1
                time.sleep(mine.choice((0.0, 0.0, 0.1, 1.0)))

    crowd(one, dice, target)


def request(bundle: Bundle, dice: random.Random) -> bytes:
    """Bytes that may be a request."""
    method, path = dice.choice((*ROUTES, ("GET", "/v1/bundle"), ("GET", "/v1/status"), ("GET", "/")))
    body = json_body(bundle, dice)
    length = dice.choice((len(body), len(body), 10**6, 10**18, 0))
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n"
    kinds = [
        f"{head}content-length: {length}\r\n\r\n".encode() + body,
        f"{head}transfer-encoding: chunked\r\n\r\n".encode()
        + b"%x\r\n" % len(body)
        + body
        + b"\r\n0\r\n\r\n",
        f"{head}transfer-encoding: chunked\r\n\r\nfffffffff\r\n".encode() + body,
        f"{head}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n".encode(),
        head.encode() + b"x: " + b"y" * dice.choice((10, 70_000)) + b"\r\n\r\n",
        head.encode() * 50,
        f"{method} {path} HTTP/1.1\r\n\r\n".encode() * 20,
        dice.randbytes(200),
        b"\x16\x03\x01" + dice.randbytes(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    return dice.choice(kinds)


def pieces(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """The bytes at once, or a few at a time."""
    if dice.random() < 0.7:
        yield data
        return
    step = dice.randrange(1, 50)
    for at in range(0, min(len(data), 20 * step), step):
        yield data[at : at + step]
        time.sleep(0.02)


# -- what all have in common


def crowd(one: Callable[[int], None], dice: random.Random, target: Target) -> None:
    """Several of a kind at once, and somebody honest among them."""
    seeds = [dice.getrandbits(32) for _ in range(WORKERS)]
    workers = [threading.Thread(target=one, args=(seed,)) for seed in seeds]
    with honest(target):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


@contextlib.contextmanager
def honest(target: Target) -> Iterator[None]:
    """A device that asks every second, and is to be answered."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(LOOK_S):
            target.look()

    device = threading.Thread(target=ask)
    device.start()
    try:
        yield
    finally:
        over.set()
        device.join()
        target.look()


KINDS = {"api": api, "bodies": bodies, "connections": connections}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", nargs="*", choices=[*KINDS, []], help="Default: all of them.")
    parser.add_argument("--seconds", type=float, default=600.0, help="For each kind.")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    failed = False
    for kind in asked.kind or KINDS:
        for number, enrolled in enumerate((False, True)):
            with tempfile.TemporaryDirectory() as name:
                target = Target(Path(name) / "server", enrolled)
                print(f"{kind}, {asked.seconds / 2:g} s, seed {asked.seed}", flush=True)
                try:
                    KINDS[kind](
                        target, time.monotonic() + asked.seconds / 2, random.Random(asked.seed + number)
                    )
                finally:
                    target.end()
            for finding in dict.fromkeys(target.findings[:20]):
                print(f"FOUND {finding}", flush=True)
            failed |= bool(target.findings)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
