# SPDX-License-Identifier: Apache-2.0
"""The house rules that no tool checks on its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgefl

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "edgefl": "edgefl",
    "converters": "edgefl.converters",
    "runtime": "edgefl.runtime",
    "server_stub": "edgefl.server_stub",
}
JOINING = (
    "edgefl/__init__.py",
    "edgefl/__main__.py",
    "edgefl/cli/",
    "edgefl/simulation/",
)  # the only places that may reach across
FRAMEWORKS = (
    "tensorflow",
    "torch",
    "onnx",
    "coremltools",
    "onnxruntime",
    "ai_edge_litert",
    "tflite_runtime",
    "zstandard",
)


def modules(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        if not relative.startswith(("edgefl/converters/", "edgefl/runtime/", "edgefl/server_stub/")):
            yield path


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.device
def test_tflite_files_are_written_in_one_place() -> None:
    """Where each is checked against the interpreters' memory planner."""
    calls = [path for path in modules("converters") if "convert_object_to_bytearray(" in path.read_text()]

    assert [path.name for path in calls] == ["flatbuffer.py"]


@pytest.mark.device
@pytest.mark.parametrize("folder", FOLDERS)
def test_dependencies_point_one_way(folder: str) -> None:
    others = {name for name in FOLDERS.values() if name not in ("edgefl", FOLDERS[folder])}

    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        if not path.relative_to(ROOT).as_posix().startswith(JOINING)
        for name in imported(path)
        if any(name == other or name.startswith(other + ".") for other in others)
    ]

    assert wrong == []


@pytest.mark.device
def test_package_list_matches_the_tree() -> None:
    listed = set(re.findall(r'^  "(edgefl[\w.]*)"|, "(edgefl[\w.]*)"', _packages_text(), re.M))

    names = {a or b for a, b in listed}
    found = {
        ".".join([FOLDERS[folder], *path.parent.relative_to(ROOT / folder).parts])
        for folder in FOLDERS
        for path in modules(folder)
        if path.name == "__init__.py"
    }

    assert names == found


@pytest.mark.device
def test_device_side_imports_numpy_only() -> None:
    code = (
        "import sys; import edgefl, edgefl.bundle, edgefl.delta, edgefl.graph, edgefl.data, edgefl.wire\n"
        "import edgefl.runtime\n"
        f"print([m for m in {FRAMEWORKS!r} if m in sys.modules])"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"


# Slow to import, and needed by some devices or some commands only.
SLOW = (
    "http.client",
    "ssl",
    "importlib.metadata",
    "argparse",
    "typer",
    "rich",
    "sqlite3",
    "asyncio",
    "unittest",
)


@pytest.mark.device
@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("import edgefl.runtime", ("numpy", *SLOW)),
        ("from edgefl.runtime import Trainer", SLOW),
        ("import edgefl.runtime.command", ("numpy", *SLOW)),
        ("import edgefl.runtime.command.device", ("argparse", "typer", "rich", "asyncio", "unittest")),
    ],
)
def test_imports_bring_no_more_than_they_need(statement: str, without: tuple[str, ...]) -> None:
    """Beyond what NumPy imports itself."""
    own = "import numpy; own = set(sys.modules); " if "numpy" not in without else "own = set(); "
    code = (
        f"import sys; {own}{statement}; print([m for m in {without!r} if m in sys.modules and m not in own])"
    )

    # A process whose coverage is measured holds more.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    assert out.stdout.strip() == "[]"


FIRST = """
import importlib, pkgutil, sys
import numpy, edgefl, edgefl.runtime
found = list(pkgutil.walk_packages(edgefl.runtime.__path__, "edgefl.runtime."))
for name in [module.name for module in found if not module.name.endswith("__main__")]:
    for known in [known for known in sys.modules if known.split(".")[0] == "edgefl"]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except ImportError as exc:
        print(name, exc)
"""


@pytest.mark.device
def test_every_module_of_the_runtime_may_be_imported_first() -> None:
    """Processes of their own begin with one of them; a circle would end them."""
    out = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)

    assert out.stdout == ""


@pytest.mark.device
def test_public_names_are_pinned() -> None:
    assert edgefl.__all__ == sorted(edgefl.__all__)
    assert dir(edgefl) == edgefl.__all__


@pytest.mark.device
def test_changelog_has_this_version() -> None:
    assert f"## [{edgefl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.device
def test_nobody_is_told_to_install_a_stranger() -> None:
    """On the package index `edgefl` is another project; this distribution is `edgefl-train`."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(p for f in FOLDERS for p in modules(f))]
    wrong = re.compile(r"pip3? install [^\n]*\bedgefl(?![-_]train)\b(?!/)|edgefl\[")

    assert [p.relative_to(ROOT).as_posix() for p in texts if wrong.search(p.read_text())] == []


@pytest.mark.device
@pytest.mark.parametrize("folder", [*FOLDERS, "tests", "benchmarks"])
def test_every_module_names_its_licence(folder: str) -> None:
    bare = [p for p in modules(folder) if "SPDX-License-Identifier: Apache-2.0" not in p.read_text()[:100]]

    assert bare == []


@pytest.mark.device
@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_is_ever_unpickled(folder: str) -> None:
    loads = [p for p in modules(folder) if re.search(r"import pickle|allow_pickle\s*=\s*True", p.read_text())]

    assert loads == []


def _packages_text() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return text[text.index("packages = [") : text.index("[tool.setuptools.package-dir]")]


@pytest.mark.device
def test_prose_fits_a_page() -> None:
    """Lines of at most 100 columns; tables, pictures and code have the width they need."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*_bridge/README.md")]
    wide = []
    for page in pages:
        code = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            if len(line) > 100 and not code and not line.startswith(("|", "!", "<", "    ")):
                wide.append(f"{page.relative_to(ROOT)}:{number}")
    assert wide == []
