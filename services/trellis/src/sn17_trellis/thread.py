"""A thread with one place for a job, room for short calls between jobs, and a tick while idle."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class WorkThread(Generic[T]):
    """Runs ``start`` once, then jobs one at a time, calls between them, ``idle`` at every quiet tick.

    ``start`` and ``work`` must not raise; if one does, ``failed`` is told and the thread ends.
    """

    def __init__(
        self,
        *,
        start: Callable[[], None],
        work: Callable[[T], None],
        idle: Callable[[], None],
        close: Callable[[], None],
        failed: Callable[[BaseException], None],
        tick_seconds: float,
    ) -> None:
        self._start = start
        self._work = work
        self._idle = idle
        self._close = close
        self._failed = failed
        self._tick = tick_seconds
        self._condition = threading.Condition()
        self._job: T | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, job: T) -> bool:
        """Take the job if the place is free. The caller knows whether another one is at work."""
        with self._condition:
            if self._job is not None or self._closing:
                return False
            self._job = job
            self._condition.notify()
        return True

    def call(self, function: Callable[[], R]) -> Future[R]:
        """Run ``function`` on the thread after the job at work."""
        future: Future[R] = Future()
        with self._condition:
            if self._closing:
                future.set_exception(RuntimeError("the worker thread is ending"))
                return future
            self._calls.append((function, future))
            self._condition.notify()
        return future

    def close(self, timeout: float) -> bool:
        """End after the job at work; false if the thread is still busy then (it is a daemon)."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._refuse_calls()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._start()
            while self._turn():
                pass
            self._close()
        except BaseException as error:
            logging.getLogger("sn17.trellis").exception("the worker thread ended")
            self._failed(error)
        finally:
            self._refuse_calls()

    def _turn(self) -> bool:
        with self._condition:
            if self._job is None and not self._calls and not self._closing:
                self._condition.wait(self._tick)
            job, self._job = self._job, None
            call = self._calls.popleft() if job is None and self._calls else None
            closing = self._closing
        if job is not None:
            self._work(job)
        elif call is not None:
            _answer(*call)
        elif closing:
            return False
        else:
            self._idle()
        return True

    def _refuse_calls(self) -> None:
        with self._condition:
            self._closing = True
            calls = list(self._calls)
            self._calls.clear()
        for _, future in calls:
            future.set_exception(RuntimeError("the worker thread ended"))


def _answer(function: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
