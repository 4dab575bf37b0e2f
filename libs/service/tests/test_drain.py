from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sn17_contract.http import LeaseOwner
from sn17_service import DrainLease

OWNERS = st.sampled_from([LeaseOwner.USER, LeaseOwner.OPERATOR])


class LeaseMachine(RuleBasedStateMachine):
    """Against a plain dictionary of ends."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.lease = DrainLease(lambda: self.now)
        self.model: dict[LeaseOwner, float | None] = {}

    def held(self) -> set[LeaseOwner]:
        return {by for by, end in self.model.items() if end is None or end > self.now}

    @rule(by=OWNERS, ttl=st.none() | st.floats(0.1, 100))
    def hold(self, by: LeaseOwner, ttl: float | None) -> None:
        self.lease.hold(by, "why", ttl)
        self.model[by] = None if ttl is None else self.now + ttl

    @rule(by=OWNERS)
    def lift(self, by: LeaseOwner) -> None:
        assert self.lease.lift(by) == (by in self.held())
        self.model.pop(by, None)

    @rule(seconds=st.floats(0, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def shutdown(self) -> None:
        self.lease.hold(LeaseOwner.SHUTDOWN, "SIGTERM")
        self.model[LeaseOwner.SHUTDOWN] = None
        assert not self.lease.lift(LeaseOwner.SHUTDOWN)

    @invariant()
    def same(self) -> None:
        assert {lease.by for lease in self.lease.leases()} == self.held()
        assert self.lease.draining == bool(self.held())
        first = next((by for by in LeaseOwner if by in self.held()), None)
        assert (self.lease.current.by if self.lease.current else None) == first


TestLease = LeaseMachine.TestCase
TestLease.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
