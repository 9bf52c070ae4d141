# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from edgefl.bundle import Bundle
from tests.fixtures.small import small


@pytest.fixture
def bundle() -> Bundle:
    return small()
