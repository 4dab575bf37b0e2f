"""Every one-line fault of the list is noticed by the tests, or has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from sn17_bench.mutants import MUTANTS, Mutant, survives


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file} {m.old[:30]}")
def test_the_tests_notice(mutant: Mutant, tmp_path: Path) -> None:
    assert not survives(mutant, tmp_path) or mutant.reason
