# SPDX-License-Identifier: Apache-2.0
"""A phone of its own: `python -m tests.android.phone CLASSES FOLDER SERVER ENGINE SETTINGS`.

A JVM in a process of its own takes part through the bridge's own classes and prints what `takePart` answers.
"""

from __future__ import annotations

import sys

import jpype

from tests.android.host import started


def main(classes: str, folder: str, server: str, engine: str, settings: str) -> None:
    jpype.startJVM("-Xmx256m", classpath=[classes], convertStrings=False)
    started(jpype)
    dev = jpype.JPackage("dev").edgefl
    flag = jpype.JClass("java.util.concurrent.atomic.AtomicBoolean")()
    deaf = jpype.JProxy("java.util.function.Consumer", dict={"accept": lambda event: None})
    device = dev.AndroidDevice(dev.test.TestContext(folder), flag, deaf)
    door = dev.EdgeFl(jpype.JClass("java.io.File")(folder))
    print(door.takePart(server, getattr(dev, engine)(1), device, settings))


if __name__ == "__main__":
    main(*sys.argv[1:])
