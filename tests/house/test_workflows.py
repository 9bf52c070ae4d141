# SPDX-License-Identifier: Apache-2.0
"""Workflows that never ran here: their syntax by a linter, and what they call by looking for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="the linter of workflows is not installed")

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    """By the published schema of workflows, which comes with the program."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    command += map(str, files)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_linter_finds_nothing() -> None:
    assert WORKFLOWS
    done = lint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("timeout-minutes: 45", "timeout-minuets: 45"),
        ("runs-on: macos-latest", ""),
        ("uses: actions/checkout", "use: actions/checkout"),
        ("contents: read", "contents: reed"),
    ],
)
def test_the_linter_would_find_a_mistake(tmp_path: Path, right: str, wrong: str) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (ROOT / ".github" / "workflows" / "apple.yml").read_text()
    assert text.count(right) == 1
    (folder / "apple.yml").write_text(text.replace(right, wrong))
    assert lint(folder / "apple.yml").returncode != 0


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_what_a_workflow_calls_is_there(file: Path) -> None:
    from edgefl.cli.app import COMMANDS

    commands = {command.__name__ for _, command, _ in COMMANDS}
    jobs: dict[str, Any] = yaml.safe_load(file.read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {name for run in runs for name in re.findall(r"^edgefl (\S+)", run, re.MULTILINE)} <= commands
    named = {name for run in runs for name in re.findall(r"\b(?:tests|ios_bridge|scripts)\b[\w/.]*", run)}
    assert named and all((ROOT / name).exists() for name in named), named
