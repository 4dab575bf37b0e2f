"""Injections in a row on one world, for the tests of both worlds."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from sn17_chaos.faults import CannotInjectError, Register
from sn17_chaos.results import Row, table
from sn17_chaos.runner import Trial, trial

DEADLINE_SECONDS = 120.0


def inject_all(world: Any, register: Register[Any], plan: Sequence[Sequence[str]], seed: int) -> list[Trial]:
    """Each entry of the plan names the faults injected together. Prints the table and asserts that nothing
    was lost, doubled or breached; a fault that this machine cannot do is said and left out."""
    rng = Random(seed)
    done: list[Trial] = []
    rows: dict[str, Row] = {}
    for names in plan:
        try:
            found = trial(world, [register[name] for name in names], rng, deadline=DEADLINE_SECONDS)
        except CannotInjectError as error:
            print(f"not injected: {' + '.join(names)}: {error}")
            continue
        done.append(found)
        row = rows.setdefault(found.name, Row(found.name, "fast", "", "", seed))
        row.add(tasks=found.tasks, breaches=found.breaches, recovery=found.recovery)
        if found.recovery is None:
            break
    print(table(list(rows.values())))
    print("\n".join(world.log[-60:]))
    breaches = [f"{found.name}: {breach}" for found in done for breach in found.breaches]
    assert not breaches, "\n".join(breaches)
    return done
