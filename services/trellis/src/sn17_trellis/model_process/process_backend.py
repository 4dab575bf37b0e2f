"""``Backend`` in the service process, for a backend that runs in a model process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sn17_contract.metrics import GenerationKind, RerunCause

from sn17_trellis.backend import (
    Cancelled,
    EncodedAsset,
    Generation,
    IsCancelled,
    Job,
    JobKilledModel,
    ModelFailing,
    Progress,
)
from sn17_trellis.model_process.keeper import Keeper
from sn17_trellis.model_process.life import SLICE_SECONDS, Life, ModelDied, Ticket, wait_for
from sn17_trellis.model_process.messages import Generated
from sn17_trellis.model_process.processes import CANARY

MAX_DEATHS: Final = 2

log = logging.getLogger("sn17.trellis.model")


@dataclass(slots=True, eq=False)
class _Work:
    """A job with what belongs to it over both its runs."""

    job: Job
    progress: Progress
    cancelled: IsCancelled
    deaths: int = 0


class ProcessBackend:
    """Drives the life that serves. A job whose process dies runs once more in the next life."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._one = threading.Lock()

    # --- the protocol -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        life = self._keeper.current
        return life.loaded.name if life is not None and life.loaded is not None else "none"

    @property
    def models(self) -> tuple[str, ...]:
        life = self._keeper.current
        if life is not None and life.loaded is not None:
            self._models = life.loaded.models
        return self._models

    _models: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        life = self._keeper.current
        return life.loaded.identity if life is not None and life.loaded is not None else "none"

    def load(self) -> None:
        life = self._keeper.call(self._keeper.first_life).result()
        life.load(self._keeper.run.sampling(life, self._keeper.check_stop))

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        life = self._keeper.current
        if life is not None:
            warm = life.warm_up(progress, self._keeper.run.sampling(life, self._keeper.check_stop))
            self._keeper.meter.measures.held(warm_up=warm.device_seconds)

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        work = _Work(job, progress, cancelled)
        life, ticket, made = self._until_generated(work)
        if job.kind is GenerationKind.CANARY:
            self._keeper.meter.measures.held(canary=made.device_seconds)
        return Generation(
            lambda: self._encoded(work, life, ticket),
            made.gaussians,
            made.stage_seconds,
            life.life_id,
            lane=made.lane,
        )

    def cleanup(self) -> None:
        """Of the life that serves; none, or one that dies, has nothing to free."""
        life = self._keeper.current
        if life is None or self._keeper.recycling is not None:
            return
        with self._one:
            try:
                life.cleanup(self._stalled(life, None))
            except ModelDied as died:
                log.warning("no clean-up: %s", died)

    def gpu_memory(self) -> Mapping[str, int]:
        life = self._keeper.current
        return {} if life is None else life.gpu_memory

    def canary(self) -> Job:
        return CANARY

    def close(self) -> None:
        self._keeper.kill()

    # --- runs -------------------------------------------------------------------------------------

    def _until_generated(self, work: _Work) -> tuple[Life, Ticket, Generated]:
        while True:
            try:
                with self._one:
                    return self._attempt(work)
            except ModelDied as died:
                self._again(work, died)

    def _encoded(self, work: _Work, life: Life, ticket: Ticket) -> EncodedAsset:
        """Wait for the asset of a job that was generated; run it again if its process died meanwhile."""
        while True:
            try:
                found = wait_for(ticket.encoded, self._stalled(life, ticket))
            except ModelDied as died:
                self._again(work, died)
                life, ticket, _ = self._until_generated(work)
                continue
            return EncodedAsset(Path(ticket.file), found.size, found.quality, found.digest or None)

    def _attempt(self, work: _Work) -> tuple[Life, Ticket, Generated]:
        def gone() -> None:
            if work.cancelled():
                raise Cancelled

        life, ticket = self._submitted(work, gone)
        number = ticket.number
        stalled = self._stalled(life, ticket)
        told = False

        def meanwhile() -> None:
            nonlocal told
            if not told and work.cancelled():
                told = True
                life.cancel(number)
            stalled()

        return life, ticket, wait_for(ticket.generated, meanwhile)

    def _submitted(self, work: _Work, gone: Callable[[], None]) -> tuple[Life, Ticket]:
        keeper = self._keeper
        while True:
            with keeper.claimed(gone) as life:
                if life is None:
                    raise ModelFailing(f"{keeper.failing or 'the model process is gone'}; use another worker")
                if not keeper.must_wait:
                    number, file = keeper.run.next_number(life)
                    return life, life.submit(number, work.job, file, work.progress)
            gone()
            with keeper.changed:
                keeper.changed.wait(SLICE_SECONDS)

    def _again(self, work: _Work, died: ModelDied) -> None:
        """Note a death; returns if the job may run once more."""
        work.deaths += 1
        if work.cancelled():
            raise Cancelled
        if work.deaths >= MAX_DEATHS:
            raise JobKilledModel(
                f"the model process ended twice under this job ({died}); use another worker"
            ) from died
        self._keeper.metrics.reruns.labels(died.cause.value).inc()
        log.warning("the job runs once more in the next life: %s", died)

    def _stalled(self, life: Life, ticket: Ticket | None) -> Callable[[], None]:
        """Gives a process up that has not moved for too long."""
        began, allowed = time.monotonic(), self._keeper.settings.stall_seconds

        def check() -> None:
            moved_at = began if ticket is None else ticket.moved_at
            if time.monotonic() - moved_at > allowed and life.death is None:
                log.error("the model process has not moved for %.0f s", allowed)
                life.give_up(RerunCause.STALLED, f"the model process did not move for {allowed:.0f} s")

        return check
