"""Which door the free workers go to: weighted fair queueing over doors that have work to ask for.

A door's account grows by ``1 / weight`` for each worker it takes, and the lowest account goes next
(start-time fair queueing, Goyal, Vin and Cheng 1996). A door that had nothing to ask for gains no credit
meanwhile. So doors that always have work get workers in proportion to their weights, and one that waits is
served after a bounded number of others, whatever they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sharing:
    """``weights`` of the doors, above 0; the first door wins where accounts are equal."""

    weights: Mapping[str, float]
    accounts: dict[str, float] = field(default_factory=dict)
    _level: float = 0.0
    """The account of the door that was served last, before it was."""
    _waiting: frozenset[str] = frozenset()

    def share(self, free: int, wanted: Mapping[str, int]) -> dict[str, int]:
        """How many of ``free`` workers each door may take now, at most what it wants. Charges nobody."""
        self._join(wanted)
        accounts, given = dict(self.accounts), dict.fromkeys(self.weights, 0)
        for _ in range(free):
            door = self._next(accounts, {d: wanted.get(d, 0) - given[d] for d in self.weights})
            if door is None:
                break
            given[door] += 1
            accounts[door] += 1.0 / self.weights[door]
        return given

    def took(self, door: str, workers: int = 1) -> None:
        """The door uses workers now."""
        for _ in range(workers):
            self._level = max(self._level, self.accounts[door])
            self.accounts[door] += 1.0 / self.weights[door]

    def returned(self, door: str, workers: int = 1) -> None:
        """Workers that it took were not needed."""
        self.accounts[door] -= workers / self.weights[door]

    def _join(self, wanted: Mapping[str, int]) -> None:
        waiting = frozenset(door for door in self.weights if wanted.get(door, 0) > 0)
        for door in self.weights:
            account = self.accounts.get(door, 0.0)
            fresh = door in waiting and door not in self._waiting
            self.accounts[door] = max(account, self._level) if fresh else account
        self._waiting = waiting

    def _next(self, accounts: Mapping[str, float], left: Mapping[str, int]) -> str | None:
        # min() takes the first of equals.
        return min((door for door in self.weights if left[door] > 0), key=accounts.__getitem__, default=None)
