"""One life of the model: a process, what it was told, and what it has answered."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sn17_contract.metrics import RerunCause

from sn17_trellis.backend import Job, Progress
from sn17_trellis.model_process.launcher import Handle
from sn17_trellis.model_process.messages import (
    Cancel,
    Channel,
    Cleaned,
    Cleanup,
    Close,
    Encoded,
    Failed,
    Generated,
    Load,
    Loaded,
    Report,
    Run,
    Turns,
    Vitals,
    Warm,
    WarmUp,
    error_of,
)
from sn17_trellis.model_process.messages import (
    Progress as ProgressReport,
)

SLICE_SECONDS: Final = 0.05
ALONE: Final = Turns()
"""Gives the device up at every step: where no other process works, that costs next to nothing."""

log = logging.getLogger("sn17.trellis.model")
R = TypeVar("R")


class ModelDied(Exception):  # noqa: N818
    """The model process ended, or was given up, before it answered."""

    def __init__(self, cause: RerunCause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


def new_life_id() -> str:
    """Random, as a boot id is."""
    return secrets.token_hex(8)


@dataclass(slots=True, eq=False)
class Ticket:
    """A job in one life. ``file`` is the temporary name under which its asset appears."""

    number: int
    file: str
    progress: Progress
    generated: Future[Generated] = field(default_factory=Future)
    encoded: Future[Encoded] = field(default_factory=Future)
    moved_at: float = field(default_factory=time.monotonic)

    def fail(self, error: BaseException) -> None:
        _settle(self.generated, error=error)
        _settle(self.encoded, error=error)


class Life:
    """Any thread may ask. Once it is over, whatever its process still says is dropped."""

    def __init__(self, life_id: str, channel: Channel, handle: Handle, *, ended: Callable[[], None]) -> None:
        self.life_id = life_id
        self.handle = handle
        self.loaded: Loaded | None = None
        self.gpu_memory: dict[str, int] = {}
        self.death: ModelDied | None = None
        self.dropped = 0
        self.peak = 0
        self.began = time.monotonic()
        self._channel = channel
        self._ended = ended
        self._lock = threading.Lock()
        self._tickets: dict[int, Ticket] = {}
        self._reply: Future[Loaded | Warm | Cleaned] | None = None
        self._progress: Progress = lambda *_: None
        self._claims = 0
        self._reader = threading.Thread(target=self._read, name=f"life-{life_id[:6]}", daemon=True)
        self._reader.start()

    # --- what it is asked -------------------------------------------------------------------------

    def load(self, give_up: Callable[[], None]) -> Loaded:
        """Raises what the backend's ``load`` raised, ModelDied, or whatever ``give_up`` raises."""
        self.loaded = self._ask(Load(), Loaded, lambda *_: None, give_up)
        return self.loaded

    def warm_up(self, progress: Progress, give_up: Callable[[], None], turns: Turns = ALONE) -> Warm:
        """As :meth:`load`."""
        return self._ask(WarmUp(turns=turns), Warm, progress, give_up)

    def cleanup(self, give_up: Callable[[], None]) -> None:
        """As :meth:`load`."""
        self._ask(Cleanup(), Cleaned, lambda *_: None, give_up)

    def submit(
        self, number: int, job: Job, file: str, progress: Progress, turns: Turns | None = None
    ) -> Ticket:
        """Give it a job, its picture as a file's bytes. Raises ModelDied."""
        if job.image is not None:
            raise TypeError("a model process takes the bytes of a picture, not its pixels")
        ticket = Ticket(number, file, progress)
        with self._lock:
            if self.death is not None:
                raise self.death
            self._tickets[number] = ticket
        run = Run(
            number=number,
            job=job.kind,
            seed=job.seed,
            prompt=job.prompt,
            sampling=job.sampling,
            picture=job.picture is not None,
            file=file,
            turns=turns,
        )
        try:
            self._channel.send(run, job.picture)
        except OSError:
            self._wait_for_end()
        return ticket

    def cancel(self, number: int) -> None:
        """Ask it to stop a job between two steps."""
        try:
            self._channel.send(Cancel(number=number))
        except OSError:
            log.debug("cancelled a job of a process that is gone")

    @property
    def at_work(self) -> int:
        """Jobs that it has not finished, and those about to be given to it."""
        with self._lock:
            return len(self._tickets) + self._claims

    def claim(self) -> None:
        """A job is about to be given to it."""
        with self._lock:
            self._claims += 1

    def unclaim(self) -> None:
        """It was, or will not be."""
        with self._lock:
            self._claims -= 1

    def sample(self, size: int | None) -> None:
        """Note how much memory its process has now."""
        self.peak = max(self.peak, size or 0)

    def leave(self) -> None:
        """Ask it to finish what it encodes and to end."""
        try:
            self._channel.send(Close())
        except OSError:
            log.debug("asked a process to end that is gone")

    def give_up(self, cause: RerunCause, detail: str) -> None:
        """End it now: its jobs run again elsewhere, and what it still says is dropped."""
        self._over(ModelDied(cause, detail))
        self.handle.kill()

    def close(self) -> None:
        """Hear no more of a process that has been reaped. Its reader lets go of the socket."""
        self._channel.hang_up()
        self._reader.join(1.0)

    # --- inside -----------------------------------------------------------------------------------

    def _ask(
        self,
        command: Load | WarmUp | Cleanup,
        kind: type[R],
        progress: Progress,
        give_up: Callable[[], None],
    ) -> R:
        reply: Future[Loaded | Warm | Cleaned] = Future()
        with self._lock:
            if self.death is not None:
                raise self.death
            self._reply, self._progress = reply, progress
        try:
            self._channel.send(command)
        except OSError:
            self._wait_for_end()
        found = wait_for(reply, give_up)
        if not isinstance(found, kind):
            raise TypeError(f"asked for {kind.__name__}, told {type(found).__name__}")
        return found

    def _wait_for_end(self) -> None:
        """It does not read any more: its reader thread says why."""
        self._reader.join(5.0)

    def _read(self) -> None:
        try:
            self._hear()
        except Exception:
            log.exception("cannot follow the model process any more", extra={"life_id": self.life_id})
        self._channel.hang_up()
        self.handle.kill()
        ended = self.handle.wait(5.0)
        status = self.handle.status
        text = "does not end" if not ended else f"ended ({_name(status)})"
        killed = status is not None and status < 0
        cause = RerunCause.KILLED if killed else RerunCause.CRASHED
        self._over(ModelDied(cause, f"the model process {text}"))
        self._channel.close()
        self._ended()

    def _hear(self) -> None:
        while True:
            try:
                report = self._channel.report()
            except (EOFError, OSError):
                return
            self._take(report)

    def _take(self, report: Report) -> None:
        if isinstance(report, Vitals):
            self.gpu_memory = report.gpu_memory
            return
        if isinstance(report, Loaded | Warm | Cleaned) or report.number == 0:
            self._answered(report)
            return
        ticket = self._ticket(report)
        if ticket is None:
            self.dropped += 1
            log.warning("dropped what a given-up job still had to say", extra={"life_id": self.life_id})
            return
        ticket.moved_at = time.monotonic()
        match report:
            case ProgressReport():
                ticket.progress(report.stage, report.step, report.steps)
            case Generated():
                _settle(ticket.generated, report)
            case Encoded():
                _settle(ticket.encoded, report)
            case Failed():
                ticket.fail(error_of(report))

    def _ticket(self, report: ProgressReport | Generated | Encoded | Failed) -> Ticket | None:
        with self._lock:
            if isinstance(report, Encoded | Failed):
                return self._tickets.pop(report.number, None)
            return self._tickets.get(report.number)

    def _answered(self, report: Report) -> None:
        with self._lock:
            reply, progress = self._reply, self._progress
        if isinstance(report, ProgressReport):
            progress(report.stage, report.step, report.steps)
        elif isinstance(report, Failed) and reply is not None:
            _settle(reply, error=error_of(report))
        elif isinstance(report, Loaded | Warm | Cleaned) and reply is not None:
            _settle(reply, report)

    def _over(self, death: ModelDied) -> None:
        with self._lock:
            if self.death is None:
                self.death = death
            tickets, self._tickets = list(self._tickets.values()), {}
            reply = self._reply
        for ticket in tickets:
            ticket.fail(self.death)
        if reply is not None:
            _settle(reply, error=self.death)


def wait_for(future: Future[R], give_up: Callable[[], None]) -> R:
    """The future's result; ``give_up`` is asked meanwhile and raises to end the wait."""
    while True:
        try:
            return future.result(SLICE_SECONDS)
        except TimeoutError:
            if future.done():
                raise
            give_up()


def _settle(future: Future[R], result: R | None = None, *, error: BaseException | None = None) -> None:
    try:
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)
    except InvalidStateError:
        return


def _name(status: int | None) -> str:
    if status is None:
        return "unknown"
    return f"signal {-status}" if status < 0 else f"code {status}"
