"""Reads the miner's journal over its ops port."""

from __future__ import annotations

import httpx2
from pydantic import ValidationError
from sn17_contract.tasks import TaskList, TaskView
from sn17_http import own_client

from sn17.accept.stack import StackError

PAGE = 1000


class MinerTasks:
    """``GET /v1/tasks`` with the admin token. Tasks once seen are remembered beyond one answer's page."""

    def __init__(self, url: str, token: str, client: httpx2.Client | None = None) -> None:
        self._url = url.rstrip("/")
        self._client = client or own_client(timeout=15)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._tasks: dict[int, TaskView] = {}

    def read(self) -> list[TaskView]:
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
        try:
            found = TaskList.model_validate_json(answer.content)
        except ValidationError as error:
            raise StackError(
                f"the answer of {self._url}/v1/tasks is no task list ({error.error_count()} errors):"
                " is this the miner's ops port, of the same version?"
            ) from error
        self._tasks.update((task.n, task) for task in found.tasks)
        return list(self._tasks.values())
