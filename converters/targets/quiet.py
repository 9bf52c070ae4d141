# SPDX-License-Identifier: Apache-2.0
"""Keeping a converter's chatter off the user's terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence Python warnings, the named loggers, and what native code writes to the terminal."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    with warnings.catch_warnings(), _no_native_output(), _no_python_output():
        warnings.simplefilter("ignore")
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _no_python_output() -> Iterator[None]:
    """Python's streams need not be descriptors 1 and 2: notebooks and tests put their own in place."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _no_native_output() -> Iterator[None]:
    """Point file descriptors 1 and 2 at a temporary file; C++ logs bypass sys.stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):
            stream.flush()
    with tempfile.TemporaryFile() as sink, contextlib.ExitStack() as restore:
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):
                saved = os.dup(descriptor)
                restore.callback(os.close, saved)
                restore.callback(os.dup2, saved, descriptor)
                os.dup2(sink.fileno(), descriptor)
        yield
