"""Submitted assets are kept within a number and a size, whatever else happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miner_fakes import SPZ
from miner_harness import Harness
from sn17_http import own_async_client
from sn17_miner.kept import KeptAssets


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
