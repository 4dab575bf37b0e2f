"""Whether a result is good enough for a gateway's client, who judges nothing and gives no second chance.

There are no verdicts to learn from and a refusal costs no cooldown, so the fixer's findings decide alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from sn17_contract.tasks import Signal

from sn17_miner.core.gate import Choice, Step


@dataclass(frozen=True, slots=True)
class ClientSituation:
    """``generation`` seconds that another one takes, delivery included; ``left`` of the task's life."""

    signal: Signal
    generation: float
    left: float
    seeds_left: int
    worker_free: bool


def choose_for_client(s: ClientSituation) -> Choice:
    """Deliver what passes the checks; else try another seed; else deliver, unless it is beyond repair."""
    if s.signal not in (Signal.FAILS_CHECKS, Signal.UNREPAIRABLE):
        return Choice(Step.SUBMIT, f"{s.signal.value}: good enough for a client")
    if s.seeds_left > 0 and s.worker_free and s.generation < s.left:
        return Choice(Step.RETRY, f"{s.signal.value}: another seed may be better; {s.left:.1f} s are left")
    hint = "no seed left" if s.seeds_left <= 0 else "no worker or no time for another seed"
    if s.signal is Signal.FAILS_CHECKS:
        return Choice(Step.SUBMIT, f"{s.signal.value}: better than nothing; {hint}")
    return Choice(Step.SKIP, f"{s.signal.value}: no use to a client; {hint}")
