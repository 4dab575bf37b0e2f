"""Submitted assets are kept within a number and a size, whatever else happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import time
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miner_fakes import SPZ
from miner_harness import Harness
from sn17_http import own_async_client
from sn17_miner.kept import KeptAssets
from sn17_miner.miner import Miner
from sn17_miner.spool import Spool, is_disk_full


def put(folder: Path, size: int) -> Path:
    path = folder / "best.spz"
    path.write_bytes(b"x" * size)
    return path


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5_000), max_size=12),
    count=st.integers(0, 5),
    room=st.integers(0, 12_000),
)
def test_the_newest_are_kept_within_both_limits(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], count: int, room: int
) -> None:
    base = tmp_path_factory.mktemp("kept")
    kept = KeptAssets(base / "submitted", count, room)
    for n, size in enumerate(sizes):
        kept.keep(n, f"task-{n}", put(base, size))
        # A clock that stands still between two files must not decide which one is older.
        with contextlib.suppress(FileNotFoundError):
            os.utime(kept.path(n, f"task-{n}"), (n, n))
    there = [n for n in range(len(sizes)) if kept.path(n, f"task-{n}").exists()]
    assert len(there) <= count
    assert sum(sizes[n] for n in there) <= room
    assert there == list(range(len(sizes) - len(there), len(sizes)))


def test_a_journal_that_began_anew_finds_no_asset_of_an_older_task(tmp_path: Path) -> None:
    kept = KeptAssets(tmp_path / "submitted", 5, 1_000)
    kept.keep(1, "old", put(tmp_path, 10))
    assert kept.path(1, "old").exists()
    assert not kept.path(1, "new").exists()


def test_a_disk_that_is_short_of_room_keeps_none(tmp_path: Path) -> None:
    kept = KeptAssets(tmp_path / "submitted", 5, 1_000, min_free_bytes=1 << 60)
    kept.keep(1, "a", put(tmp_path, 10))
    assert list((tmp_path / "submitted").iterdir()) == []


def test_a_disk_that_others_fill_takes_the_room_of_what_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "submitted"
    KeptAssets(folder, 5, 1_000).keep(1, "a", put(tmp_path, 10))
    KeptAssets(folder, 5, 1_000).prune()
    assert len(list(folder.iterdir())) == 1
    KeptAssets(folder, 5, 1_000, min_free_bytes=1 << 60).prune()
    assert list(folder.iterdir()) == []


def test_an_asset_that_cannot_be_dropped_raises_nothing(tmp_path: Path) -> None:
    """An error here would end the task that asked for the room."""
    kept = KeptAssets(tmp_path / "submitted", 5, 1_000)
    kept.path(1, "a").mkdir(parents=True)
    assert kept.clear() == 0


class CrowdedSpool(Spool):
    """A disk that has no room for files of a kind as long as assets are kept on it."""

    kept: Path
    kind: str

    def create(self, name: str) -> IO[bytes]:
        fits = not name.endswith(self.kind) or not any(self.kept.iterdir())
        return super().create(name) if fits else FullDisk()


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_newest_asset_is_kept_although_the_clock_was_set_back(tmp_path: Path) -> None:
    kept = KeptAssets(tmp_path / "submitted", 2, 1_000)
    ahead = time.time() + 30
    for n in (1, 2):
        kept.keep(n, "a", put(tmp_path, 10))
        os.utime(kept.path(n, "a"), (ahead + n, ahead + n))
    for n in (3, 4):
        kept.keep(n, "a", put(tmp_path, 10))
        assert kept.path(n, "a").exists()
        assert kept.path(n - 1, "a").exists()
        assert not kept.path(n - 2, "a").exists()


@pytest.mark.parametrize("kind", [".ply", ".spz"])
async def test_kept_assets_give_way_to_the_work_when_the_disk_is_full(harness: Harness, kind: str) -> None:
    """They were dropped after the next submission only, which never came; and the fixer was blamed."""
    worker, validator = await harness.worker(), await harness.validator()

    def crowd(miner: Miner) -> None:
        miner.context.kept.keep(99, "earlier", put(harness.folder, 10))
        spool = CrowdedSpool(miner.context.spool.folder, 1 << 30)
        spool.kept, spool.kind = miner.context.kept.folder, kind
        miner.context.spool = spool

    await harness.run(prepare=crowd)
    assert validator.outcomes() == ["accepted"]
    assert len({asked["key"] for asked in worker.asked}) == 1, "no generation is lost by it"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("no"), False),
    ],
)
def test_a_full_disk_is_known_by_its_error_however_deep(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full
    outer = RuntimeError("the result cannot be written")
    outer.__cause__ = error
    assert is_disk_full(outer) is full


def test_a_folder_that_cannot_be_used_stops_no_task(tmp_path: Path) -> None:
    (tmp_path / "submitted").write_text("in the way")
    kept = KeptAssets(tmp_path / "submitted", 5, 1_000)
    kept.keep(1, "a", put(tmp_path, 10))
    assert (tmp_path / "submitted").read_text() == "in the way"


async def test_what_was_submitted_is_read_over_the_ops_port_with_the_token(harness: Harness) -> None:
    token = harness.folder / "token"
    token.write_text("right")
    await harness.worker()
    validator = await harness.validator()
    await harness.process(admin_token_file=token)
    async with asyncio.timeout(60), own_async_client(timeout=10.0) as client:
        await harness.changes.until(validator.outcomes, 60)
        ready = json.loads((harness.folder / "ready.json").read_text())
        url = f"http://127.0.0.1:{ready['ops_port']}/v1/tasks"
        headers = {"authorization": "Bearer right"}
        while (answer := await client.get(f"{url}/1/asset", headers=headers)).status_code != 200:
            assert answer.json()["code"] == "not_found"
            await asyncio.sleep(0.05)
        assert answer.content == SPZ
        assert 'filename="task-1.spz"' in answer.headers["content-disposition"]
        assert (await client.get(f"{url}/1/asset")).status_code == 401
        missing = await client.get(f"{url}/999/asset", headers=headers)
    assert (missing.status_code, "no task 999" in missing.json()["detail"]) == (404, True)


async def test_nothing_is_kept_where_the_setting_says_so(
    harness: Harness,
) -> None:
    worker = await harness.worker()
    await harness.validator()
    await harness.run(keep_assets=0)
    assert worker.asked
    assert not (harness.state() / "submitted").exists()
