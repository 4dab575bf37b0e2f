"""Somebody who asks the gateway of the local stack for assets, one after the other, whatever breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import httpx2
from sn17_contract.gateway import HEADER_KEY, Route, StatusBody, TaskId
from sn17_contract.http import HEADER_IDEMPOTENCY_KEY
from sn17_contract.tasks import Outcome
from sn17_gateway.core.model import State
from sn17_http import own_client

from sn17_chaos.history import OPEN, Assigned

NO_VALIDATOR: Final = ""
"""Of a client's task, as the miner's journal has it."""
POLL_SECONDS: Final = 0.3
THINK_SECONDS: Final = 2.0


@dataclass(slots=True)
class Clients:
    """Asks from the first moment until ``close``. Every request is made again until it is answered; a task
    counts as accepted once its asset has been fetched.

    url: of the gateway, asked anew for every call: it may be another one after a restart.
    """

    url: Callable[[], str]
    key: str
    tasks: list[Assigned] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._ask_on, name="client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(10.0)

    def _ask_on(self) -> None:
        with own_client(headers={HEADER_KEY: self.key}, timeout=5.0) as http:
            number = 0
            while not self._over.is_set():
                number += 1
                self._one(http, number)
                self._over.wait(THINK_SECONDS)

    def _one(self, http: httpx2.Client, number: int) -> None:
        body = {"prompt": f"{1 + number % 3} large blue domes on a red plate"}
        headers = {HEADER_IDEMPOTENCY_KEY: f"chaos-{number}"}
        answer = self._answered(lambda: http.post(self.url() + Route.ADD_TASK, json=body, headers=headers))
        if answer is None:
            return
        # As with a validator's task its time begins when it is there, not when it was first asked for.
        task = Assigned(TaskId.model_validate_json(answer.content).id, NO_VALIDATOR, time.time())
        self.tasks.append(task)
        place, query = len(self.tasks) - 1, {"id": task.task_id}
        while not self._over.wait(POLL_SECONDS):
            answer = self._answered(lambda: http.get(self.url() + Route.GET_STATUS, params=query))
            status = None if answer is None else StatusBody.model_validate_json(answer.content).status
            if status == State.FAILURE:
                self.tasks[place] = replace(task, outcome=str(Outcome.GIVEN_UP), closed_at=time.time())
                return
            if status in (State.SUCCESS, State.PARTIAL):
                fetched = self._answered(lambda: http.get(self.url() + Route.GET_RESULT, params=query))
                if fetched is not None:
                    self.tasks[place] = replace(task, outcome=str(Outcome.ACCEPTED), closed_at=time.time())
                return

    def _answered(self, call: Callable[[], httpx2.Response]) -> httpx2.Response | None:
        """The first good answer; None once it is over."""
        while not self._over.is_set():
            try:
                return call().raise_for_status()
            except httpx2.HTTPError:
                self._over.wait(POLL_SECONDS)
        return None

    def handed_out(self) -> list[Assigned]:
        """Every task so far."""
        return list(self.tasks)

    def open_since(self, since: float) -> list[Assigned]:
        """Asked for by then, and not fetched yet."""
        return [task for task in self.handed_out() if task.assigned_at <= since and task.outcome == OPEN]
