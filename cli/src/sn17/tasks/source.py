"""Where task lists come from: the journal on disk, or a running miner's ops port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
from sn17_contract.tasks import TaskList, TaskView
from sn17_miner.journal.views import list_tasks, open_story

JOURNAL = "journal.sqlite"


class SourceError(Exception):
    """Nothing to read from; the message says what to do."""


class TaskSource(Protocol):
    """Raises SourceError."""

    def tasks(self, *, limit: int, filters: dict[str, str]) -> TaskList:
        """The newest tasks."""

    def task(self, n: int) -> TaskView:
        """One task with its story."""


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A journal, whether its miner runs or not."""

    path: Path

    def tasks(self, *, limit: int, filters: dict[str, str]) -> TaskList:
        """See TaskSource."""
        return list_tasks(
            self.path,
            limit=limit,
            state=filters.get("state"),
            validator=filters.get("validator"),
            task_id=filters.get("task_id"),
            door=filters.get("door"),
        )

    def task(self, n: int) -> TaskView:
        """See TaskSource."""
        view = open_story(self.path, n)
        if view is None:
            raise SourceError(f"the journal has no task {n}; it may have been pruned")
        return view


@dataclass(frozen=True, slots=True)
class OpsPort:
    """The miner's ops port, as ``kubectl port-forward`` brings it here."""

    client: httpx2.Client

    def tasks(self, *, limit: int, filters: dict[str, str]) -> TaskList:
        """See TaskSource."""
        return TaskList.model_validate(self._get("/v1/tasks", {"limit": str(limit), **filters}))

    def task(self, n: int) -> TaskView:
        """See TaskSource."""
        return TaskView.model_validate(self._get(f"/v1/tasks/{n}", {}))

    def _get(self, path: str, params: dict[str, str]) -> Any:
        try:
            response = self.client.get(path, params=params)
        except httpx2.HTTPError as error:
            raise SourceError(f"{self.client.base_url}: {error}") from error
        if response.status_code != 200:
            try:
                detail = response.json()["detail"]
            except (ValueError, KeyError, TypeError):
                detail = "no reason given"
            raise SourceError(f"the miner answered {response.status_code}: {detail}")
        return response.json()


def find_journal(state_dir: Path | None, root: Path) -> JournalFile:
    """The journal in ``state_dir``, or of the newest ``sn17 up`` under ``root``."""
    if state_dir is not None:
        candidates = [state_dir / JOURNAL, state_dir / "miner" / JOURNAL]
    else:
        candidates = sorted(
            root.glob(f".sn17/*/miner/{JOURNAL}"), key=lambda p: p.stat().st_mtime, reverse=True
        )
    for path in candidates:
        if path.exists():
            return JournalFile(path)
    where = f"in {state_dir}" if state_dir is not None else "under .sn17 here"
    raise SourceError(f"no journal {where}: give --state-dir, or --url and --token-file of a running miner")
