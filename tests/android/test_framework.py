# SPDX-License-Identifier: Apache-2.0
"""The bridge against Android's own classes, of API 23, and the doubles against them too."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.android.conftest import BRIDGE, javac
from tests.android.host import sources

SINCE_29 = {"android.os.PowerManager": "getCurrentThermalStatus"}
"""Members newer than the jar; each is behind a look at SDK_INT."""

NOT_ANDROIDS = {"android.app.job.JobParameters": ("finished", "JobParameters")}
"""Members that only the doubles have, for tests."""


@pytest.fixture(scope="session")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Android's classes, from Debian."""
    script = BRIDGE.parent / "scripts" / "android.sh"
    folder = BRIDGE.parent / "build" / "android"
    done = subprocess.run(
        [str(script), str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return folder / "android.jar"


def test_the_bridge_compiles_against_android(jar: Path, classes: Path, tmp_path: Path) -> None:
    others = [f for f in sources(BRIDGE / "host" / "java") if "/android/" not in f.split("host/java")[1]]
    newer = [str(BRIDGE / "host" / "java" / "android" / "os" / "PowerManager.java")]
    stubs = [*others, str(BRIDGE / "host/java/com/chaquo/python/android/AndroidPlatform.java")]
    doubles = tmp_path / "doubles"
    doubles.mkdir()
    javac(doubles, [*dict.fromkeys(stubs), *newer], jar)
    out = tmp_path / "main"
    out.mkdir()
    javac(out, sources(BRIDGE / "src"), doubles, jar)
    assert list(out.rglob("KeystoreCipher.class"))
    sample = tmp_path / "sample"
    sample.mkdir()
    javac(sample, sources(BRIDGE / "sample"), out, doubles, jar)


def test_a_method_android_lacks_does_not_compile(jar: Path, classes: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "Wrong.java"
    wrong.write_text("class Wrong { void f(android.os.BatteryManager b) { b.isChargin(); } }")
    with pytest.raises(AssertionError, match="isChargin"):
        javac(tmp_path, [str(wrong)], jar)


def members(path: Path, name: str) -> set[str]:
    """Public and protected members of a class, as javap prints them."""
    done = subprocess.run(
        ["javap", "-protected", "-cp", str(path), name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = (line.strip() for line in done.stdout.splitlines()[2:])
    # Constructors that Android hides do no harm: the bridge itself is compiled against the jar.
    lines = (line for line in lines if f"{name.replace('$', '.')}()" not in line.replace("$", "."))
    return {
        re.sub(r"\b(synchronized|final|native|abstract|static) (?=.*\()", "", line)
        for line in lines
        if line != "}"
    }


def test_doubles_have_the_signatures_android_has(jar: Path, classes: Path) -> None:
    android = BRIDGE / "host" / "java"
    names = [
        str(f.relative_to(android))[:-5].replace("/", ".") for f in (android / "android").rglob("*.java")
    ]
    assert len(names) >= 12
    for name in names:
        for inner in (name, *(f"{name}${n}" for n in ("Builder", "VERSION", "MemoryInfo"))):
            if inner != name and not (classes / f"{inner.replace('.', '/')}.class").exists():
                continue
            allowed = (SINCE_29.get(name, ""), *NOT_ANDROIDS.get(name, ()))
            more = {
                m
                for m in members(classes, inner) - members(jar, inner)
                if not any(a and a in m for a in allowed)
            }
            assert not more, f"{inner} has {more}"


def test_manifests_name_the_service_that_is_there() -> None:
    android = "{http://schemas.android.com/apk/res/android}"
    ElementTree.parse(BRIDGE / "src" / "main" / "AndroidManifest.xml")
    sample = BRIDGE / "sample" / "src" / "main"
    (service,) = ElementTree.parse(sample / "AndroidManifest.xml").iter("service")
    name = service.attrib[f"{android}name"]
    assert (sample / "java" / f"{name.replace('.', '/')}.java").exists()
    assert service.attrib[f"{android}permission"] == "android.permission.BIND_JOB_SERVICE"
