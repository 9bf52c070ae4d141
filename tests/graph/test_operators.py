# SPDX-License-Identifier: Apache-2.0
"""Every kernel against the ONNX project's own cases."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("onnx", reason="the cases come with the onnx package")

from benchmarks import operators
from edgefl.graph.kernels import KERNELS

SKIPPED: Counter[str] = Counter()
CASES = list(operators.cases(SKIPPED))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_gives_what_the_onnx_project_expects(case: operators.Case) -> None:
    assert operators.check(case) == ""


def test_every_kernel_has_a_case() -> None:
    assert {case.operator for case in CASES} == set(KERNELS)


def test_a_wrong_result_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "Relu", KERNELS["Neg"])
    relu = next(case for case in CASES if case.operator == "Relu")

    assert "values differ" in operators.check(relu)


def test_the_table_counts_all_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert operators.main([]) == 0

    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("total"))
    assert total.split()[-2:] == [str(len(CASES))] * 2
