# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium by its own pipe: pages as people get them, asked and photographed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

_PATIENCE_S = 60
_QUIETLY = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-sync",
    "--disable-component-update",
)  # fmt: skip


def chromium() -> str | None:
    """The browser of this machine, None where there is none."""
    return next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)


class Page:
    """One page of a browser."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._number, self._rest = send, receive, 0, b""
        self._session: dict[str, str] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {
            "sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        }
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command of the DevTools protocol answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def open(self, url: str, width: int = 1280, height: int = 900, theme: str = "light") -> None:
        """Go to a page, on a screen of a size, in a theme."""
        self._go("about:blank")
        # What was said so far was of the page before.
        self.errors = []
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = [{"name": "prefers-color-scheme", "value": theme}]
        self.ask("Emulation.setEmulatedMedia", media="screen", features=scheme)
        self._go(url)

    def _go(self, url: str) -> None:
        self.ask("Page.navigate", url=url)
        deadline = time.monotonic() + _PATIENCE_S
        while self.run(f"location.href != {json.dumps(url)} || document.readyState != 'complete'"):
            assert time.monotonic() < deadline, f"{url} did not load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, most: int = 20_000) -> bytes:
        """The whole page as PNG, or so many pixels from its top."""
        whole = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": whole["width"], "height": min(whole["height"], most), "scale": 1}
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(found["data"])

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what the page's console says in red."""
        entry = message.get("params", {}).get("entry", {})
        if message.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
            self.errors.append(json.dumps(message["params"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], _PATIENCE_S)
            assert ready, "the browser says nothing"
            more = os.read(self._receive, 1 << 20)
            assert more, "the browser has gone"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def browsing() -> Iterator[Page]:
    """A page of a browser of its own."""
    program = chromium()
    assert program is not None, "no chromium here"
    theirs_in, ours_out = _pipe()
    ours_in, theirs_out = _pipe()

    def wire() -> None:
        # The browser reads commands from its descriptor 3 and answers on 4.
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    with tempfile.TemporaryDirectory(prefix="edgefl-browser-", ignore_cleanup_errors=True) as profile:
        command = [program, *_QUIETLY, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(
            command, preexec_fn=wire, pass_fds=(3, 4), start_new_session=True, **nowhere
        )
        try:
            os.close(theirs_in)
            os.close(theirs_out)
            yield Page(ours_out, ours_in)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(ours_in)
            os.close(ours_out)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are above the descriptors that the browser has for it."""
    ends = os.pipe()
    above = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return above[0], above[1]
