# SPDX-License-Identifier: Apache-2.0
"""What people's recordings become, and that the docs' table is that of the results."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("seglearn")

from benchmarks.personalization import DOCS, RESULT, table
from edgefl.cli.demo.watch import load_recordings, people


def test_everyone_has_early_and_later_recordings_that_share_no_sample() -> None:
    data = load_recordings()
    everyone = people(data)

    assert len(everyone) == len(np.unique(data.subject)) == 10
    for person in everyone.values():
        (x, y), (later, labels) = person.early, person.later
        assert set(np.unique(labels)) <= set(np.unique(y)) and len(labels) < len(y)
        assert not {row.tobytes() for row in x} & {row.tobytes() for row in later}
        # Half a window is a step, so neighbours share it: none of a pair may lie on each side of the cut.
        ends, starts = ({half.tobytes() for half in part} for part in (x[:, 50:], later[:, :50]))
        assert not ends & starts


def test_the_table_in_the_docs_is_made_of_the_results() -> None:
    found = json.loads(RESULT.read_text())

    assert table(found["rows"]) in DOCS.read_text()
    assert found["machine"]["numpy"] and found["versions"]["edgefl"]
