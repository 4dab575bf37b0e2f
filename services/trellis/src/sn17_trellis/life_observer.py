"""What changes in a worker when another model process serves."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sn17_contract.metrics import GenerationKind, GenerationOutcome
from sn17_service import Service

from sn17_trellis.canary import CanaryVerdict
from sn17_trellis.degradation import Degradation
from sn17_trellis.guard import Guard
from sn17_trellis.metrics import RecentTasks, WorkerMetrics
from sn17_trellis.quality import Quality
from sn17_trellis.upkeep import Upkeep

log = logging.getLogger("sn17.trellis")


class LifeObserver:
    """The :class:`Observer` of a worker; called from the keeper's thread."""

    def __init__(
        self,
        service: Service,
        recent: RecentTasks,
        degradation: Degradation,
        guard: Guard,
        upkeep: Upkeep,
        metrics: WorkerMetrics,
    ) -> None:
        self._service = service
        self._recent = recent
        self._degradation = degradation
        self._guard = guard
        self._upkeep = upkeep
        self._metrics = metrics

    def judge(self, identity: str, quality: Quality, digest: str, *, proves: bool) -> CanaryVerdict:
        """As :meth:`Degradation.judge`."""
        return self._degradation.judge(identity, quality, digest, proves=proves)

    def new_life(self, life_id: str, take: Callable[[], None], *, canary_holds: bool) -> None:
        """What is told of a life changes at once, between two scrapes."""
        with self._service.scrape_lock:
            take()
            self._recent.new_life()
            self._degradation.new_life(canary_holds=canary_holds)
            self._guard.new_life()
            self._upkeep.policy.new_life()
        log.info("another model process serves", extra={"life_id": life_id})

    def canary_ran(self, verdict: CanaryVerdict, digest: str) -> None:
        """The canary of the life that serves."""
        self._metrics.count(GenerationKind.CANARY, GenerationOutcome.OK)
        self._upkeep.canary_ran()
        self._degradation.heard(verdict, digest)

    def failed(self, reason: str) -> None:
        """No model process can be started any more."""
        self._service.stop(1, reason)

    def device_suspect(self, reason: str) -> None:
        """A model process does not end although it was killed."""
        self._degradation.device_suspect(reason)
