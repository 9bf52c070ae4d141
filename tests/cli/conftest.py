# SPDX-License-Identifier: Apache-2.0
"""The command line as users call it: in its own process, or by its entry point where that adds nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgefl.cli import main, output
from tests.cli.commands import Command, Ran, in_own_process, save_examples

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def edgefl(tmp_path: Path) -> Command:
    """`python -m edgefl ARGUMENTS` in a process of its own, in an empty folder."""

    def command(*arguments: object, columns: int = 100) -> Ran:
        return in_own_process(arguments, tmp_path, columns)

    return command


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The entry point in this process, in an empty folder."""

    def command(*arguments: object, columns: int = 100) -> Ran:
        monkeypatch.setattr(sys, "argv", ["edgefl", *map(str, arguments)])
        # Our consoles keep the width of the time they were made; usage errors make one of their own.
        monkeypatch.setenv("COLUMNS", str(columns))
        for console in (output.out, output.err):
            monkeypatch.setattr(console, "_width", columns)
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        status = ended.value.code
        return Ran(status if isinstance(status, int) else 0, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def mlp() -> Path:
    """A bundle of 6 inputs, 10 tanh units and 3 classes, all trained, batches of 8."""
    return FIXTURES / "mlp.edgefl"


@pytest.fixture(scope="session")
def head() -> Path:
    """The same with its hidden layer frozen into a features graph."""
    return FIXTURES / "head.edgefl"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 examples in three clusters, as `.npz`."""
    return save_examples(tmp_path_factory.mktemp("data") / "examples.npz")
