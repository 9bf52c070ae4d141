# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgefl.bundle import Bundle
from edgefl.errors import BackendUnavailable
from edgefl.runtime import BACKENDS, open_backend
from edgefl.runtime.store import ExampleStore

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def mlp() -> Bundle:
    """6 inputs, 10 tanh units, 3 classes, batches of 8; everything trained."""
    return Bundle.open(FIXTURES / "mlp.edgefl")


@pytest.fixture(scope="session")
def head() -> Bundle:
    """The same model with its hidden layer frozen into a features graph."""
    return Bundle.open(FIXTURES / "head.edgefl")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, mlp: Bundle) -> str:
    """Each engine installed here, by name."""
    try:
        open_backend(mlp, request.param)
    except BackendUnavailable as exc:
        pytest.skip(str(exc))
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[Callable[..., ExampleStore]]:
    """Opens example stores that are closed at the end: from 3.13 on Python warns of those that are not."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(ExampleStore(*args, **options))
