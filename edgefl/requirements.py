# SPDX-License-Identifier: Apache-2.0
"""What to install for a purpose: packages by their own names, from this distribution's metadata.

Never an extra of `edgefl`: on the package index that name belongs to another project, and a hint to install
it would bring a stranger's code.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DISTRIBUTION = "edgefl-train"
"""The distribution's name; the import name and the command are `edgefl`."""
DEVICE_DISTRIBUTION = "edgefl-train-device"
"""The same without what only workstations and servers run."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;\[]*?)\s*(?:;\s*(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_PYTHON = re.compile(r"""python_version\s*(<|>=)\s*['"](\d+)\.(\d+)['"]""")


@dataclass(frozen=True)
class Requirement:
    """One line of the metadata.

    Attributes:
        name: the package.
        versions: which of it, such as `>=1.17`, or "".
        extra: the extra it belongs to, or "".
        below, from_: versions of Python it is for, or None.
    """

    name: str
    versions: str = ""
    extra: str = ""
    below: tuple[int, int] | None = None
    from_: tuple[int, int] | None = None

    @property
    def fits(self) -> bool:
        """Whether it is for this Python."""
        here = sys.version_info[:2]
        return (self.below is None or here < self.below) and (self.from_ is None or here >= self.from_)

    def is_for(self, package: str) -> bool:
        """Whether it names this package, or the module of that name."""
        return self.name.replace("_", "-") == package.replace("_", "-")

    @property
    def installed(self) -> bool:
        from importlib import metadata

        try:
            metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return False
        return True

    def __str__(self) -> str:
        """As pip takes it from a shell."""
        return f"'{self.name}{self.versions}'" if self.versions else self.name


def requirements() -> tuple[Requirement, ...]:
    """Every requirement of the distribution; none where neither its metadata nor its source is at hand."""
    found = filter(
        None, map(_parsed, _metadata() or _in_source(Path(__file__).parents[1] / "pyproject.toml"))
    )
    return tuple(r for r in found if r.name != DISTRIBUTION)  # an extra that is a list of others


def pip_install(package: str, extra: str = "") -> str:
    """The command that brings a package, and whatever else of the extras is missing here.

    Args:
        package: what is needed in any case.
        extra: names of `[project.optional-dependencies]`, with commas between them; where nothing is
            known of them the package stands alone.
    """
    known, extras = requirements(), set(filter(None, extra.split(",")))
    own = next((r for r in known if r.is_for(package) and r.fits), Requirement(package))
    rest = [r for r in known if r.extra in extras and r.fits and not r.installed]
    return f"pip install {' '.join({r.name: str(r) for r in (own, *rest)}.values())}"


def newest_python(package: str) -> tuple[int, int] | None:
    """The last Python a package is asked for on, None where there is no limit or it is not known."""
    below = next((r.below for r in requirements() if r.is_for(package) and r.below), None)
    return below and (below[0], below[1] - 1)


def _metadata() -> list[str]:
    """What the installed distribution says it requires."""
    from importlib import metadata  # as slow to import as all of this package together

    for name in (DISTRIBUTION, DEVICE_DISTRIBUTION):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.requires(name) or []
    return []


def _in_source(pyproject: Path) -> Iterator[str]:
    """What the metadata would say, for an edgefl that runs from a checkout."""
    try:
        import tomllib

        project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    except (ImportError, OSError, ValueError, KeyError):
        return
    if project["name"] != DISTRIBUTION:
        return
    yield from project["dependencies"]
    for extra, lines in project["optional-dependencies"].items():
        for line in lines:
            what, _, marker = line.partition(";")
            yield f"{what}; {f'{marker} and ' if marker else ''}extra == '{extra}'"


def _parsed(line: str) -> Requirement | None:
    """A line as far as hints need it; None where it is of another form: no error may fail over its hint."""
    found = _REQUIREMENT.fullmatch(line.strip())
    if found is None:
        return None
    name, versions, marker = found[1], found[2].strip(" ()"), found[3] or ""
    extra = _EXTRA.search(marker)
    limits = {sign: (int(major), int(minor)) for sign, major, minor in _PYTHON.findall(marker)}
    return Requirement(name, versions, extra[1] if extra else "", limits.get("<"), limits.get(">="))
