# SPDX-License-Identifier: Apache-2.0
"""Trials in a process of their own, which a delegate may crash or hang as it likes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from edgefl.bundle import Bundle
from edgefl.runtime.delegates import probe
from edgefl.runtime.delegates.choice import Choice, State, Verdict

_WORDS = {
    "reference": "while the CPU ran the graph",
    "load": "while loading",
    "run": "while running the graph",
}
_LAST_WORDS = 300
_GRACE_S = 5.0


def processes_allowed() -> bool:
    """Whether this system lets an application start processes; phones do not."""
    return bool(sys.executable) and sys.platform not in ("ios", "android", "emscripten", "wasi")


def try_isolated(bundle: Bundle | None, kind: str, choice: Choice, threads: int) -> Verdict:
    """What `try_choice` finds, in a process that is ended after the choice's time limit.

    Args:
        bundle: None to see only whether the delegate loads.
    """
    with tempfile.TemporaryDirectory(prefix="edgefl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = {"kind": kind, "choice": asdict(choice), "threads": threads}
        (folder / probe.JOB).write_text(json.dumps(job))
        if bundle is not None:
            (folder / probe.BUNDLE).write_bytes(bundle.slice(choice.engine).to_bytes())
        try:
            status = _run(folder, choice.limit_s)
        except OSError as exc:
            return Verdict(choice.name, kind, "untried", f"no process could be started: {exc}")
        return _read(folder, kind, choice, status)


def _run(folder: Path, limit_s: float) -> int | None:
    """The exit status of the trial's process, None where it had to be ended."""
    command = [sys.executable, "-m", probe.__name__, str(folder)]
    # The child finds edgefl where this process did, installed or not.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that went wrong and what it started; one stuck in the kernel is not waited for."""
    if process.returncode == 0:
        return
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)


def _read(folder: Path, kind: str, choice: Choice, status: int | None) -> Verdict:
    when = _WORDS.get(_text(folder / probe.STAGE), "while starting")
    state: State
    if status is None:
        state, reason = "hung", f"no end {when} within {choice.limit_s:g} s"
    elif status == 0 and (verdict := _verdict(folder)) is not None:
        return verdict
    else:
        state, reason = "crashed", f"{_cause(status)} {when}{_last_words(folder)}"
    return Verdict(choice.name, kind, state, reason)


def _verdict(folder: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads((folder / probe.VERDICT).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _cause(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}"
    try:
        return f"{signal.Signals(-status).name} ended its process"
    except ValueError:
        return f"signal {-status} ended its process"


def _last_words(folder: Path) -> str:
    lines = [line for line in _text(folder / "said").splitlines() if line.strip()]
    return f": {lines[-1][:_LAST_WORDS]}" if lines else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
