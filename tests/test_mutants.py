"""The list of deliberate bugs: each still applies to the code. `make mutants` shows that a test kills it."""

from __future__ import annotations

from pathlib import Path

import mutants
import pytest

import unmask

SOURCE = Path(unmask.__file__).parent


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.name)
def test_the_bug_can_still_be_made(mutant):
    assert (SOURCE / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
    for test in mutant.tests:
        assert (Path(__file__).parent / test.split("::")[0]).exists()
