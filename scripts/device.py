# SPDX-License-Identifier: Apache-2.0
"""What a device installs, from this tree: a wheel without converters and servers, or one file that runs.

    python scripts/device.py wheel dist          -> dist/edgefl_train_device-VERSION-py3-none-any.whl
    python scripts/device.py pyz dist            -> dist/edgefl-device.pyz

Both need NumPy beside them and nothing else; import names are those of the whole distribution, so a machine
has one of the two. The same tree gives the same bytes.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "edgefl-train-device"
ELSEWHERE = ("edgefl.cli", "edgefl.simulation", "edgefl.privacy", "edgefl.converters", "edgefl.server_stub")
"""Packages that only workstations and servers run, with all that is below them."""
EXTRAS = ("onnx", "tflite", "tflite-runtime", "openvino", "ort-training", "zstd", "keys")
MAIN = b"from edgefl.runtime.command import main\n\nmain()\n"
OPTIONS = "edgefl/options.py"
"""Its docstrings are what --help says."""
MODE = 0o100644 << 16


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("wheel", "pyz"):
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    name, data = wheel() if arguments[0] == "wheel" else ("edgefl-device.pyz", pyz())
    (folder / name).write_bytes(data)
    print(f"{folder / name}: {len(data) / 1e3:.0f} kB")
    return 0


def pyz() -> bytes:
    """A ZIP that Python runs. Lines keep their numbers, but what is for readers stays in the wheel."""
    files = {name: data if name == OPTIONS else bare(data) for name, data in modules().items()}
    return b"#!/usr/bin/env python3\n" + _zipped({"__main__.py": MAIN, **files})


def bare(source: bytes) -> bytes:
    """A module without docstrings and lines of comment, line for line."""
    lines, tree, inside = source.decode().split("\n"), ast.parse(source), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            inside.update(range(node.lineno, node.end_lineno or node.lineno))
        for text in node.body if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else ():
            if isinstance(text, ast.Expr) and isinstance(getattr(text.value, "value", None), str):
                # A body needs a statement; before `from __future__` there must be none.
                first = "" if isinstance(node, ast.Module) else " " * text.col_offset + "0"
                last = text.end_lineno or text.lineno
                lines[text.lineno - 1 : last] = [first, *[""] * (last - text.lineno)]
    kept = ("" if t.lstrip().startswith("#") and i not in inside else t for i, t in enumerate(lines))
    return "\n".join(kept).encode()


def wheel() -> tuple[str, bytes]:
    """A wheel's name and bytes."""
    stem = f"{NAME.replace('-', '_')}-{version()}"
    info = f"{stem}.dist-info"
    files = {
        **modules(),
        f"{info}/METADATA": "\n".join(_metadata()).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: edgefl\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\nedgefl = edgefl.runtime.command:main\n",
        f"{info}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    record = [f"{name},sha256={_hash(data)},{len(data)}" for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return f"{stem}-py3-none-any.whl", _zipped(files)


def modules() -> dict[str, bytes]:
    """What a device runs, by its path below site-packages."""
    project = _pyproject()
    listed = re.findall(r'"(edgefl[\w.]*)"', _between(project, "packages = [", "]"))
    homes = dict(re.findall(r'^"(edgefl[\w.]*)" = "(\w+)"', project, re.M))
    files = {"edgefl/py.typed": b""}
    for package in listed:
        if package.startswith(ELSEWHERE):
            continue
        home = max((h for h in homes if f"{package}.".startswith(f"{h}.")), key=len)
        folder = ROOT.joinpath(homes[home], *package[len(home) :].split("."))
        for path in sorted(folder.glob("*.py")):
            files[f"{package.replace('.', '/')}/{path.name}"] = path.read_bytes()
    return files


def version() -> str:
    return re.findall(r'__version__ = "(.+)"', (ROOT / "edgefl" / "_version.py").read_text())[0]


def _metadata() -> Iterator[str]:
    project = _pyproject()
    yield from ("Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {version()}")
    yield f"Summary: {_one('description', project)} For devices."
    yield f"License: {_one('license', project)}"
    yield f"Requires-Python: {_one('requires-python', project)}"
    for requirement in re.findall(r'"(.+?)"', _between(project, "\ndependencies = [", "]")):
        yield f"Requires-Dist: {requirement}"
    for extra in EXTRAS:
        yield f"Provides-Extra: {extra}"
        for line in re.findall(r'"(.+?)"[,\]]', _between(project, f"\n{extra} = [", "\n")):
            what, _, marker = line.partition(";")
            both = f"({marker.strip()}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            yield f"Requires-Dist: {what.strip()}; {both}"
    yield ""


def _zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # with the first date a ZIP can have
            entry.external_attr, entry.compress_type = MODE, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=9)
    return made.getvalue()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def _between(text: str, begin: str, end: str) -> str:
    start = text.index(begin) + len(begin)
    return text[start : text.index(end, start)]


def _one(key: str, project: str) -> str:
    return re.findall(rf'^{key} = "(.+)"', project, re.M)[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
