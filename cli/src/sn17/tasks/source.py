"""Where task lists come from: the journal on disk, or a running miner's ops port."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from sn17_contract.tasks import TaskList, TaskView
from sn17_miner.asset_route import why_not
from sn17_miner.journal.reader import JournalError
from sn17_miner.journal.views import list_tasks, open_story
from sn17_miner.kept import FOLDER, KeptAssets

JOURNAL = "journal.sqlite"
S = TypeVar("S", bound=BaseModel)


class SourceError(Exception):
    """Nothing to read from; the message says what to do."""


class NothingThereError(SourceError):
    """There is no such task, or no asset of it."""


class TaskSource(Protocol):
    """Raises SourceError."""

    def tasks(self, *, limit: int, filters: dict[str, str]) -> TaskList:
        """The newest tasks."""

    def task(self, n: int) -> TaskView:
        """One task with its story."""

    def asset(self, n: int) -> bytes:
        """The SPZ that was submitted for a task."""


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A journal, whether its miner runs or not."""

    path: Path

    def tasks(self, *, limit: int, filters: dict[str, str]) -> TaskList:
        """See TaskSource."""
        with self._readable():
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
        with self._readable():
            view = open_story(self.path, n)
        if view is None:
            raise NothingThereError(f"the journal has no task {n}; it may have been pruned")
        return view

    def asset(self, n: int) -> bytes:
        """See TaskSource."""
        task = self.task(n)
        path = KeptAssets(self.path.parent / FOLDER).path(n, task.task_id)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise NothingThereError(why_not(n, ended=task.outcome is not None)) from None
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (JournalError, OSError, sqlite3.Error) as error:
            raise SourceError(f"{self.path} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class OpsPort:
    """The miner's ops port, as ``kubectl port-forward`` brings it here."""

    client: httpx2.Client

    def tasks(self, *, limit: int, filters: dict[str, str]) -> TaskList:
        """See TaskSource."""
        return self._read(TaskList, "/v1/tasks", {"limit": str(limit), **filters})

    def task(self, n: int) -> TaskView:
        """See TaskSource."""
        return self._read(TaskView, f"/v1/tasks/{n}", {})

    def asset(self, n: int) -> bytes:
        """See TaskSource."""
        return self._get(f"/v1/tasks/{n}/asset", {}).content

    def _read(self, shape: type[S], path: str, params: dict[str, str]) -> S:
        try:
            return shape.model_validate_json(self._get(path, params).content)
        except ValidationError as error:
            raise SourceError(
                f"the answer of {self.client.base_url} is not a miner's: is it its ops port, of this version?"
            ) from error

    def _get(self, path: str, params: dict[str, str]) -> httpx2.Response:
        try:
            response = self.client.get(path, params=params)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise SourceError(f"no miner answers at {self.client.base_url}: {error}") from error
        if response.status_code == httpx2.codes.OK:
            return response
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = "no reason given"
        kind = NothingThereError if response.status_code == httpx2.codes.NOT_FOUND else SourceError
        raise kind(f"the miner answered {response.status_code}: {detail}")


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
    raise SourceError(
        f"no journal {where}: give --state-dir, --release, or --url and --token-file of a running miner"
    )
