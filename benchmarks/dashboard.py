# SPDX-License-Identifier: Apache-2.0
"""The picture of the dashboard in the docs: a server process, and devices that learn digits over HTTP.

    python -m benchmarks.dashboard [--picture docs/images/dashboard.png] [--theme dark] [--width 1280]

Ten devices train; one sends a hundred times what it should, one sends bytes that are no update. The page is
taken as Chromium draws it (`scripts/browser.sh`) once 24 of 40 rounds are over.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.robustness import prepared
from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.delta import encode
from edgefl.errors import EdgeflError, Refused
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport
from edgefl.simulation.partition import divide
from edgefl.wire import CheckIn, Task
from tests.browser import browsing

ROUNDS, SHOWN, DEVICES, DENSITY = 40, 24, 10, 0.02
OPTIONS = ("--goal", "6", "--surplus", "0.5", "--lr", "0.1", "--steps", "8", "--density", str(DENSITY),
           "--evaluate-every", "2", "--evaluators", "4", "--downlink", "0")  # fmt: skip


def main() -> int:
    # What devices say of a server that is gone at the end.
    logging.disable()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--picture", type=Path, default=Path("docs/images/dashboard.png"))
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1750)
    given = parser.parse_args()
    bundle, data = prepared("digits", 0)
    with tempfile.TemporaryDirectory() as folder, _serving(bundle, Path(folder)) as url:
        over = threading.Event()
        for name, examples in divide(data.train, DEVICES, "dirichlet:1", 0).items():
            _apart(_take_part, url, Path(folder) / name, name, examples, over)
        _apart(_misbehave, url, bundle, "loud-1", over, _loud)
        _apart(_misbehave, url, bundle, "broken-1", over, _broken)
        with HttpTransport(url) as transport:
            while Remote(transport).status().rounds_done < SHOWN:
                time.sleep(0.1)
        with browsing() as page:
            page.open(f"{url}/", given.width, 900, given.theme)
            given.picture.write_bytes(page.picture(given.height))
        over.set()
    print(given.picture)
    return 0


@contextlib.contextmanager
def _serving(bundle: Bundle, folder: Path) -> Iterator[str]:
    model, port = folder / "digits.edgefl", folder / "port"
    bundle.save(model)
    where = ["--db", str(folder / "rounds.db"), "--port", "0", "--port-file", str(port)]
    command = [sys.executable, "-m", "edgefl", "serve", str(model), *where, "--rounds", str(ROUNDS), *OPTIONS]
    with open(folder / "log.txt", "wb") as log:
        server = subprocess.Popen(command, stderr=log)
    try:
        while not port.exists():
            if server.poll() is not None:
                raise SystemExit((folder / "log.txt").read_text())
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        server.kill()
        server.wait()


def _apart(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def _take_part(url: str, workdir: Path, name: str, examples: Examples, over: threading.Event) -> None:
    with contextlib.suppress(EdgeflError), HttpTransport(url) as transport:
        client = DeviceClient(transport, examples, workdir, backend="numpy", device=name, holdout=0.2)
        for _ in client.run():
            if over.is_set():
                return


def _misbehave(
    url: str, bundle: Bundle, name: str, over: threading.Event, frame: Callable[[Bundle, Task], bytes]
) -> None:
    hello = CheckIn(name, bundle.schema().id.hex(), "unknown", 100)
    with contextlib.suppress(EdgeflError), HttpTransport(url) as transport:
        remote, sent = Remote(transport), set[str]()
        while not over.is_set():
            task = remote.check_in(hello).task
            if task is None or task.assignment in sent:
                time.sleep(0.2)
                continue
            sent.add(task.assignment)
            with contextlib.suppress(Refused):
                remote.upload(task.round, task.assignment, frame(bundle, task))


def _loud(bundle: Bundle, task: Task) -> bytes:
    """An update a hundred times as long as one is."""
    schema = bundle.schema()
    noise = np.random.default_rng(task.round).normal(size=schema.size, scale=10.0).astype(np.float32)
    made = encode(noise, schema_id=schema.id, base_version=task.base_version, density=DENSITY)
    return made.frame


def _broken(bundle: Bundle, task: Task) -> bytes:
    return b"EFLU and then nothing that anybody could read"


if __name__ == "__main__":
    sys.exit(main())
