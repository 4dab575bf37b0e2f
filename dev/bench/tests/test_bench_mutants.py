"""Every one-line fault of the list is noticed by the tests, or has a reason, and none of it is stale."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from sn17_bench.mutant_list import GUARD, MUTANTS, Core, Mutant
from sn17_bench.mutants import ROOT, changed, passes, reasons, source

FOUND = json.loads((ROOT / "dev" / "bench" / "results" / "mutants.json").read_text())["mutants"]
KEYS = {mutant.key for mutant in MUTANTS}


def test_every_fault_can_be_put_in() -> None:
    for mutant in MUTANTS:
        assert changed(mutant) != source(mutant).read_text(), mutant.key


def test_each_core_has_eight_of_them() -> None:
    assert min(Counter(mutant.core.name for mutant in MUTANTS).values()) >= 8
    assert len(KEYS) == len(MUTANTS)


def test_each_survivor_has_a_reason_and_no_reason_is_stale() -> None:
    assert set(FOUND) <= KEYS
    survivors = {key for key, row in FOUND.items() if row["survives"]}
    assert set(reasons()) == survivors
    assert all(len(reason) > 20 for reason in reasons().values())


def test_a_fault_is_noticed_and_none_is_not(tmp_path: Path) -> None:
    """The rig itself, on one core's tests."""
    (fault,) = (each for each in MUTANTS if each.old.startswith("if reading is None:"))
    core = Core(GUARD.name, GUARD.folder, GUARD.package, f"{GUARD.tests} -k guard")
    assert passes(core, tmp_path, None)
    assert not passes(core, tmp_path, Mutant(core, fault.file, fault.old, fault.new))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.core.name} {m.old[:30]}")
def test_the_tests_notice(mutant: Mutant, tmp_path: Path) -> None:
    assert not passes(mutant.core, tmp_path, mutant) or mutant.key in reasons()
