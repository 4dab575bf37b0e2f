"""Drain leases: who took this process out of service, why, and until when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from sn17_contract.http import LeaseOwner


@dataclass(frozen=True, slots=True)
class Lease:
    by: LeaseOwner
    reason: str
    expires: float | None
    """On the monotonic clock; None has no end."""


class DrainLease:
    """At most one lease per owner; draining while any holds. Safe to use from any thread.

    A lease with a term lapses by itself unless renewed: an operator that is down takes nothing out of
    service. Each lease is lifted by its owner only; a shutdown is never lifted.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._leases: dict[LeaseOwner, Lease] = {}
        self._lock = threading.Lock()

    def hold(self, by: LeaseOwner, reason: str, ttl_seconds: float | None = None) -> Lease:
        """Take or renew the lease of ``by``; without a term it holds until lifted."""
        expires = None if ttl_seconds is None else self._monotonic() + ttl_seconds
        lease = Lease(by, reason, expires)
        with self._lock:
            self._leases[by] = lease
        return lease

    def lift(self, by: LeaseOwner) -> bool:
        """Give up the lease of ``by``; false if it held none."""
        if by is LeaseOwner.SHUTDOWN:
            return False
        with self._lock:
            held = by in self._active()
            self._leases.pop(by, None)
            return held

    def leases(self) -> tuple[Lease, ...]:
        """Leases that hold now: shutdown first, then the user's, then the operator's."""
        with self._lock:
            active = self._active()
        return tuple(active[by] for by in LeaseOwner if by in active)

    @property
    def current(self) -> Lease | None:
        """The lease to show when several hold."""
        leases = self.leases()
        return leases[0] if leases else None

    @property
    def draining(self) -> bool:
        return self.current is not None

    def _active(self) -> dict[LeaseOwner, Lease]:
        now = self._monotonic()
        self._leases = {
            by: lease for by, lease in self._leases.items() if lease.expires is None or lease.expires > now
        }
        return self._leases
