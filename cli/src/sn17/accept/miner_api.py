"""Reads the miner's books over its ops port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
from sn17_contract.tasks import Outcome
from sn17_http import own_client

from sn17.accept.stack import StackError
from sn17.accept.watch import BookedTask

PAGE = 1000


class MinerBooks:
    """``GET /v1/tasks`` with the admin token. Tasks once seen are remembered beyond one answer's page."""

    def __init__(self, url: str, token: str, client: httpx2.Client | None = None) -> None:
        self._url = url.rstrip("/")
        self._client = client or own_client(timeout=15)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._tasks: dict[int, BookedTask] = {}

    def read(self) -> list[BookedTask]:
        """All tasks seen so far, newest answer first applied.

        Raises:
            StackError: the miner does not answer, or refuses the token.
        """
        try:
            answer = self._client.get(f"{self._url}/v1/tasks", params={"limit": PAGE}, headers=self._headers)
        except httpx2.HTTPError as error:
            raise StackError(f"the miner at {self._url} did not answer: {error}") from error
        if answer.status_code in (401, 403, 404):
            raise StackError(
                f"the miner at {self._url} answered {answer.status_code}: give its admin token with "
                "--token-file, the key `token` of the Secret <release>-admin-token"
            )
        if not answer.is_success:
            raise StackError(f"the miner at {self._url} answered {answer.status_code}: {answer.text[:200]}")
        for task in answer.json()["tasks"]:
            self._tasks[int(task["n"])] = _task(task)
        return list(self._tasks.values())


def _task(task: dict[str, Any]) -> BookedTask:
    outcome = task.get("outcome")
    return BookedTask(
        n=int(task["n"]),
        validator=str(task["validator"]),
        outcome=Outcome(outcome) if outcome else None,
        pulled_at=float(task["pulled_at"]),
        finished_at=task.get("finished_at"),
        submits=int(task.get("submits", 0)),
    )


def read_token(path: Path) -> str:
    """The token in a file. Raises StackError."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise StackError(f"cannot read the token file {path}: {error.strerror}") from error
