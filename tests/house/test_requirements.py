# SPDX-License-Identifier: Apache-2.0
"""What a missing package's hint says: packages by name, from the metadata or the source."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from edgefl import requirements
from edgefl.errors import MissingDependency
from edgefl.requirements import newest_python, pip_install

pytestmark = pytest.mark.device

LINES = [
    "numpy>=1.26",
    "one>=2.0 ; extra == 'pair'",
    "two-words (<3,>=1) ; (python_version < \"3.99\") and extra == 'pair'",
    "gone==1.0 ; python_version < '3.4' and extra == 'pair'",
    "edgefl-train[pair,other]; extra == 'all'",
    "@ of no form known",
    "late==1.0; python_version >= \"3.99\" and extra == 'pair'",
    "numpy>=1.26; extra == 'pair'",
]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: {"edgefl-train": LINES}[name])


def test_a_hint_names_what_is_missing_and_what_fits_this_python(said: None) -> None:
    assert pip_install("one") == "pip install 'one>=2.0'"
    assert pip_install("one", "pair") == "pip install 'one>=2.0' 'two-words<3,>=1'"
    assert pip_install("two_words", "other,pair") == "pip install 'two-words<3,>=1' 'one>=2.0'"
    assert pip_install("unknown", "other") == "pip install unknown"


def test_the_last_python_of_a_package_is_known(said: None) -> None:
    assert newest_python("two-words") == (3, 98)
    assert newest_python("gone") == (3, 3)
    assert newest_python("one") is None


def test_an_error_names_packages_and_never_an_extra(said: None) -> None:
    assert str(MissingDependency("one", "pair", "to count")) == (
        "to count needs the package 'one': pip install 'one>=2.0' 'two-words<3,>=1'"
    )


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library reads TOML from 3.11 on")
def test_a_checkout_says_the_same_as_its_metadata(absent: None) -> None:
    from packaging.requirements import Requirement

    known = {(r.name, r.extra): r for r in requirements.requirements()}

    assert ("tf2onnx", "keras") in known and ("numpy", "") in known
    assert str(known["onnxruntime", "onnx"]) == "'onnxruntime>=1.17'"
    for requirement in known.values():
        assert Requirement(f"{requirement.name}{requirement.versions}").name == requirement.name


def test_without_metadata_and_source_the_package_stands_alone(
    absent: None, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setattr(requirements, "__file__", str(tmp_path / "edgefl" / "requirements.py"))

    assert pip_install("one", "pair") == "pip install one"
