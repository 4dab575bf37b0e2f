"""From a wish to a file: hand in, ask, fetch, check, write; lost connections are taken up again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sn17_contract.backoff import Backoff
from sn17_splats import SplatError

from sn17.generate.client import GatewayClient, LaterError, LostError, RefusedError
from sn17.generate.under_way import Notes
from sn17.generate.wishes import Wish
from sn17.splat.saving import Saved, save

T = TypeVar("T")
POLL_SECONDS: Final = 1.0
LONGEST_LIFE_SECONDS: Final = 3600.0
NOBODY_SECONDS: Final = 5.0
"""How long a gateway that has never answered is looked for."""
_AGAIN: Final = Backoff(first=0.5, cap=15.0)


class FailedError(Exception):
    """The gateway's answer is that there is no asset."""


class TimeUpError(FailedError):
    """None came in time; the task may still be under way."""


@dataclass(frozen=True, slots=True)
class Task:
    """``known``: an earlier run handed it in, at ``at`` (Unix seconds)."""

    id: str
    at: float
    known: bool


@dataclass(frozen=True, slots=True)
class Made:
    """An asset that lies where it was asked for."""

    wish: Wish
    task: str
    saved: Saved
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is none. ``refused``: the gateway would take it neither now nor later."""

    wish: Wish
    task: str | None
    reason: str
    refused: bool


@dataclass(slots=True)
class Run:
    """Makes wishes. ``on_step(wish, text)`` tells how far one is; ``tasks`` are under way, by output."""

    client: GatewayClient
    notes: Notes
    on_step: Callable[[Wish, str], None]
    timeout: float
    poll_seconds: float = POLL_SECONDS
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    new_request: Callable[[], str] = lambda: str(uuid.uuid4())
    tasks: dict[str, str] = field(default_factory=dict)
    _answered: bool = False

    async def all(
        self, wishes: Sequence[Wish], at_once: int, on_end: Callable[[Made | Failed], None]
    ) -> None:
        """Make them, a few at a time.

        Raises:
            RefusedError: the key or the gateway is of no use, so the rest was not tried.
        """
        places = asyncio.Semaphore(at_once)

        async def one(wish: Wish) -> None:
            async with places:
                on_end(await self.make(wish))

        try:
            async with asyncio.TaskGroup() as group:
                for wish in wishes:
                    group.create_task(one(wish))
        except BaseExceptionGroup as errors:
            # The first says all: the others were cancelled for it, or say the same.
            raise errors.exceptions[0] from None

    async def make(self, wish: Wish) -> Made | Failed:
        """One wish.

        Raises:
            RefusedError: the key or the gateway is of no use.
            OSError: the asset cannot be written.
        """
        started = self.monotonic()
        deadline = started + self.timeout
        task: Task | None = None
        try:
            task = await self._handed_in(wish, deadline)
            saved = await self._fetched(wish, task, deadline)
        except TimeUpError as error:
            self.tasks.pop(wish.output, None)
            return Failed(
                wish,
                None if task is None else task.id,
                f"{error}; the same command looks again",
                refused=False,
            )
        except (RefusedError, FailedError, SplatError) as error:
            refused = isinstance(error, RefusedError)
            if isinstance(error, RefusedError) and error.key:
                raise
            self._over(wish)
            if task is not None and task.known:
                self.on_step(wish, f"task {task.id} of an earlier run is over: {error}")
                return await self.make(wish)
            return Failed(wish, _id(task), str(error), refused)
        self._over(wish)
        return Made(wish, task.id, saved, self.monotonic() - started)

    async def _fetched(self, wish: Wish, task: Task, deadline: float) -> Saved:
        await self._ended(wish, task, deadline)
        asset = await self._patiently(wish, deadline, lambda: self.client.result(task.id, wish.kind))
        return await asyncio.to_thread(save, asset, wish.output, wish.kind)

    async def _handed_in(self, wish: Wish, deadline: float) -> Task:
        note = self.notes.find(wish, self.clock())
        if note is not None and note.task is not None:
            self.tasks[wish.output] = note.task
            self.on_step(wish, f"picks up task {note.task} of an earlier run")
            return Task(note.task, note.at, known=True)
        at = self.clock() if note is None else note.at
        request = (note.request if note is not None else "") or self.new_request()
        self.notes.write(wish, request, None, at)
        self.on_step(wish, "is handed in" if note is None else "is handed in again")
        try:
            task = await self._patiently(wish, deadline, lambda: self.client.add(wish, request), first=True)
        except RefusedError:
            if note is None:
                self.notes.remove(wish)
            raise
        self.tasks[wish.output] = task
        self.notes.write(wish, request, task, at)
        return Task(task, at, known=note is not None)

    async def _ended(self, wish: Wish, task: Task, deadline: float) -> None:
        """Raises FailedError."""
        last = ""
        while True:
            told = await self._patiently(wish, deadline, lambda: self.client.status(task.id))
            if told.status != last:
                last = told.status
                self.on_step(wish, _WORDS.get(told.status.partition("(")[0], told.status))
            if told.status == "Success" or (told.status.startswith("PartialResult") and "(0)" not in last):
                return
            if told.status == "Failure":
                raise FailedError(told.reason or "the gateway gives no reason")
            if task.known and told.status == "NoResult" and self.clock() - task.at > LONGEST_LIFE_SECONDS:
                # A gateway that has forgotten a task tells the same of it as of one that waits.
                raise FailedError("the gateway does not know it any more")
            await self._pause(self.poll_seconds, deadline)

    async def _patiently(
        self,
        wish: Wish,
        deadline: float,
        call: Callable[[], Coroutine[Any, Any, T]],
        *,
        first: bool = False,
    ) -> T:
        """The answer of ``call``, made again while the gateway is busy or not to be reached.

        Raises:
            TimeUpError: not before the deadline.
            RefusedError: with ``first``, which nothing was handed in before, nobody is at the address.
        """
        failures, started = 0, self.monotonic()
        while True:
            try:
                answer = await call()
                self._answered = True
                return answer
            except LaterError as error:
                self._answered = True
                self.on_step(wish, f"waits: {error}")
                await self._pause(error.seconds, deadline, str(error))
            except LostError as error:
                nobody = first and not (error.sent or self._answered)
                if nobody and self.monotonic() - started >= NOBODY_SECONDS:
                    where = self.client.client.base_url
                    raise RefusedError(f"no gateway answers at {where}: {error}", key=True) from error
                failures += 1
                self.on_step(wish, f"connection lost, tried again: {error}")
                await self._pause(_AGAIN.seconds(failures), deadline, f"no connection: {error}")

    async def _pause(self, seconds: float, deadline: float, why: str = "it has not ended") -> None:
        left = deadline - self.monotonic()
        if left <= 0:
            raise TimeUpError(f"no asset within {self.timeout:.0f} s: {why}")
        await self.sleep(min(seconds, left))

    def _over(self, wish: Wish) -> None:
        self.tasks.pop(wish.output, None)
        self.notes.remove(wish)


def _id(task: Task | None) -> str | None:
    return None if task is None else task.id


_WORDS: Final = {
    "NoResult": "waits for a worker or is being made",
    "InProgress": "is being made",
    "PartialResult": "has a first result",
    "Success": "is made",
    "Failure": "failed",
}
