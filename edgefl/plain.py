# SPDX-License-Identifier: Apache-2.0
"""What commands print, by the standard library alone: lines for people, JSON for scripts."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
# Control characters, separators of lines, what turns the direction of writing, and half characters.
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


def print_json(value: object) -> None:
    """One JSON object on standard output, as scripts expect it; what JSON has no number for is null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_json_line(value: object) -> None:
    """One JSON object on one line, at once, for commands that go on printing (JSON Lines)."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False), flush=True)


def print_line(text: str) -> None:
    """One line as it is, at once: no markup, no wrapping, no control characters."""
    print(harmless(text), flush=True)


def message_of(exc: Exception) -> str:
    """What an error says, for one line; errors of the system with the file they are about."""
    if isinstance(exc, OSError) and exc.filename and exc.strerror:
        return f"{exc.filename}: {exc.strerror}"
    return str(exc)


def print_failure(exc: Exception) -> None:
    """An error as one JSON object, for commands called with --json."""
    print(json.dumps({"error": type(exc).__name__, "message": message_of(exc)}))


def harmless(text: str) -> str:
    """Text without control characters: names come from files of strangers and terminals obey them."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class Quoted(str):
    """Text that lines for people have as a JSON string: where it ends cannot be forged."""

    def __str__(self) -> str:
        return json.dumps(str.__str__(self))


class OneLine(logging.Formatter):
    """A line of the log per message, whatever strangers have put into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = harmless(record.message)
        return super().formatMessage(record)


class JsonLine(logging.Formatter):
    """A JSON object per message, on one line: time, level, logger and message, and the fields it was made of
    where it was made of named ones. Among these `event` says what happened, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        fields = record.args if isinstance(record.args, Mapping) else {}
        whole = int(record.created)
        told = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **fields,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(_harmless(_plain(told)), allow_nan=False)


LOG_FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {
    "text": lambda: OneLine(LOG_FORMAT),
    "json": JsonLine,
}


def start_log(level: int, form: str = "text") -> None:
    """Log to standard error, as every command does that runs for long; `form` is one of `LOG_FORMATS`."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMATS[form]())
    logging.basicConfig(level=level, handlers=[handler])


def moment(at: float, seconds: bool = True) -> str:
    """Seconds since the epoch as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M", time.localtime(at))


def size(count: float) -> str:
    """Bytes as people read them: 812 B, 13.4 kB, 2.1 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{int(count)} B"


def _harmless(value: object) -> object:
    """The same with all its text harmless."""
    if isinstance(value, dict):
        return {harmless(key): _harmless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_harmless(inner) for inner in value]
    return harmless(value) if isinstance(value, str) else value


def _plain(value: Any) -> object:
    """NumPy scalars, bytes, paths and the like as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "item"):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
