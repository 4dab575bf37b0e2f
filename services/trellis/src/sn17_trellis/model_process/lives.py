"""What the worker and the keeper of its model processes ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from sn17_contract.http import Code
from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import LastRecycle, RecycleHow
from sn17_service import Problem

from sn17_trellis.canary import CanaryVerdict
from sn17_trellis.model_process.room import Terms
from sn17_trellis.quality import Quality


class Observer(Protocol):
    """The worker, as the keeper sees it. Called from the keeper's thread."""

    def judge(self, identity: str, quality: Quality, digest: str, *, proves: bool) -> CanaryVerdict:
        """Hold a canary against the checkpoint's baseline. With ``proves`` it may not become one itself."""
        ...

    def new_life(self, life_id: str, take: Callable[[], None], *, canary_holds: bool) -> None:
        """From now on everything that is told is of ``life_id``; ``take`` runs at the same moment.

        What the last canary said still holds, or the canary of this life is told next.
        """
        ...

    def canary_ran(self, verdict: CanaryVerdict, digest: str) -> None:
        """The canary of the life that serves."""
        ...

    def failed(self, reason: str) -> None:
        """Nothing more can be started: the service must end."""
        ...

    def device_suspect(self, reason: str) -> None:
        """A model process does not end although it was killed: it may keep device memory."""
        ...


class Lives(Protocol):
    """The lives of the model: which one serves, and what may be done with it. Any thread may ask."""

    @property
    def life_id(self) -> str: ...

    @property
    def processes(self) -> int:
        """Model processes alive; 2 during a swap."""
        ...

    @property
    def beside(self) -> int:
        """How often a second model process was started beside the one that serves."""
        ...

    @property
    def ready(self) -> bool:
        """A model process takes jobs."""
        ...

    @property
    def failing(self) -> str | None:
        """Why no model process starts."""
        ...

    @property
    def failed_starts(self) -> int:
        """How many starts in a row failed; 0 while a process serves."""
        ...

    @property
    def recycling(self) -> RecycleHow | None: ...

    @property
    def phase(self) -> SwapPhase | None:
        """How far a process is that is being started; None: none is, or the next attempt waits."""
        ...

    @property
    def start_seconds(self) -> float | None:
        """What the latest start took until the process was ready."""
        ...

    @property
    def resting(self) -> bool:
        """Two live, not for too long yet: levels of memory say nothing of either."""
        ...

    @property
    def must_wait(self) -> bool:
        """While two live: the old one gets no job for now; it would take what the fresh one still needs."""
        ...

    @property
    def last_recycle(self) -> LastRecycle | None: ...

    @property
    def separate(self) -> bool:
        """The model is not this very process."""
        ...

    def watch(self, observer: Observer) -> None:
        """Whom to tell; before anything is started."""
        ...

    def started(self) -> None:
        """The first start is complete: from now on lives are kept up."""
        ...

    def terms(self) -> Terms | None:
        """The terms of the room for a swap, None while one is unknown."""
        ...

    def room(self) -> bool | None:
        """Whether a swap fits now; None where that is not known."""
        ...

    def memory(self) -> Mapping[str, int]:
        """Bytes by process."""
        ...

    def recycle(
        self, life_id: str, how: RecycleHow, reason: str, *, verify: bool, canary: bool = True
    ) -> None:
        """Begin an act. Without ``canary`` a fresh life need not prove itself: the last canary holds.

        Raises:
            Problem: another life serves, something else is being done, or there is no room.
        """
        ...

    def after_job(self, gaussians: int | None, idle_for: float | None) -> None:
        """Between two jobs: measure. ``gaussians`` of the asset that was made, None if there is none.

        ``idle_for``: how long no work had come before it; None where something else kept work away.
        """
        ...

    def stop_acts(self) -> None:
        """Begin nothing more and end a process that is being made ready. Blocks for a moment."""
        ...

    def kill(self) -> None:
        """End every model process now."""
        ...


class OneLife:
    """The model is this very process: its life is the service's, and ends with it."""

    processes = 1
    beside = 0
    ready = True
    failing: str | None = None
    failed_starts = 0
    recycling: RecycleHow | None = None
    phase: SwapPhase | None = None
    start_seconds: float | None = None
    resting = False
    must_wait = False
    last_recycle: LastRecycle | None = None
    separate = False

    def __init__(self, boot_id: str) -> None:
        self.life_id = boot_id

    def watch(self, observer: Observer) -> None:
        """There is nothing to tell."""

    def started(self) -> None:
        """There is nothing to keep up."""

    def terms(self) -> Terms | None:
        return None

    def room(self) -> bool | None:
        return None

    def memory(self) -> Mapping[str, int]:
        return {}

    def recycle(
        self, life_id: str, how: RecycleHow, reason: str, *, verify: bool, canary: bool = True
    ) -> None:
        if life_id != self.life_id:
            raise Problem(Code.LIFE_ID_MISMATCH, f"life {self.life_id} serves; the one you mean is gone")
        raise Problem(
            Code.CONFLICT,
            "the model is no process of its own here (SN17_MODEL_PROCESS=off): ask the worker to exit",
        )

    def after_job(self, gaussians: int | None, idle_for: float | None) -> None:
        """There is nothing to measure."""

    def stop_acts(self) -> None:
        """There are none."""

    def kill(self) -> None:
        """There is no other process."""


class InSwap:
    """Whether two model processes lived at any moment since it was made."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self._before, self._from_start = lives.beside, lives.processes > 1

    def now(self) -> bool:
        return self._from_start or self._lives.beside != self._before
