"""The journal behind a thread of its own: the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sn17_miner.journal.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")


class JournalThread:
    """``await thread(Journal.method, ...)`` runs it; calls run one after another, in order."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")

    async def __call__(
        self, method: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a method of the journal. A cancelled caller does not undo it."""
        call = partial(method, self._journal, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Finish what was asked for and close the file."""
        self._executor.submit(self._journal.close)
        self._executor.shutdown()
