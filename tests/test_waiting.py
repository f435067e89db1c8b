"""How often a step makes an accelerator wait, counted on tensors that pretend to be on one (benchmarks/waiting.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
waiting = pytest.importorskip("waiting")


@pytest.mark.parametrize("name", waiting.cases(32))
def test_a_step_waits_at_most_four_times_whatever_its_size(name):
    small, long, wide, many = (
        waiting.measure(name, *size) for size in ((11, 32, 3), (11, 64, 3), (5000, 32, 3), (11, 32, 9))
    )
    found = [row for row in (small, long, wide, many) if row["steps"] > 1]
    assert {row["same tokens"] for row in found} <= {True, ""}
    assert max(row["waits a step"] for row in found) <= 4
    assert len({row["waits a step"] for row in found}) == 1
