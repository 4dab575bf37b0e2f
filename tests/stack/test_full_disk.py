"""Commands in a real terminal whose disk is full: one line with the place, and the documented exit code."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sn17.exits import Exit
from sn17_contract.tasks import TaskKind
from sn17_files import write_atomically
from sn17_miner.journal.journal import Journal
from sn17_miner.kept import FOLDER, KeptAssets
from terminal import Terminal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "services/gateway/tests"))
from gateway_client import splat_bytes
from gateway_process import GUEST, GatewayProcess

SN17 = [sys.executable, "-m", "sn17"]
SAID = "No space left on device"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, without a byte to spare."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no program mount")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        # A write to a disk that is nearly full takes less than it was given; the next one fails.
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def says_so(terminal: Terminal, path: Path) -> None:
    assert terminal.wait() == Exit.CANNOT, terminal.text[-3000:]
    shown = " ".join(terminal.text.split())
    assert shown.count(SAID) == 1, shown
    assert f"{path}: {SAID}" in shown
    for wrong in ("Traceback", "Errno", "None", "a fault of sn17"):
        assert wrong not in shown, shown


def test_what_an_atomic_write_says_has_one_name(full: Path) -> None:
    with pytest.raises(OSError, match=SAID) as caught:
        write_atomically(full / "file", b"x" * 10_000)
    assert str(caught.value) == f"[Errno 28] {SAID}: '{full / 'file'}'"


@pytest.mark.timeout(300)
def test_up_does_not_start(full: Path) -> None:
    command = [*SN17, "up", "--backend", "procedural", "--validators", "1", "--workers", "1"]
    terminal = Terminal([*command, "--state-dir", str(full / "run")], rows=50, columns=300)
    says_so(terminal, full / "run")
    assert f"Logs: {full / 'run' / 'logs'}" in terminal.text


def test_a_repaired_splat_is_not_written(full: Path, tmp_path: Path) -> None:
    source = tmp_path / "asset.spz"
    source.write_bytes(splat_bytes(3))
    command = [*SN17, "splat", "convert", str(source), str(full / "out.ply")]
    says_so(Terminal(command, columns=300), full / "out.ply")
    assert [path.name for path in full.iterdir()] == ["filler"]


def test_a_submitted_asset_is_not_written(full: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    journal = Journal(state / "journal.sqlite")
    task, _ = journal.task_pulled(
        task_id="t1", validator="5Validator", kind=TaskKind.TEXT, prompt="a cube",
        threshold=0.6, throttle=30, assigned_at=1,
    )  # fmt: skip
    journal.close()
    kept = KeptAssets(state / FOLDER).path(task.n, "t1")
    kept.parent.mkdir()
    kept.write_bytes(splat_bytes(3))
    command = [*SN17, "tasks", "get", str(task.n), "-o", str(full / "out.ply"), "--state-dir", str(state)]
    says_so(Terminal(command, columns=300), full / "out.ply")
    assert [path.name for path in full.iterdir()] == ["filler"]


def test_a_generated_asset_is_not_written_and_can_be_fetched_again(full: Path, tmp_path: Path) -> None:
    from test_generate import Worker

    (tmp_path / "gateway").mkdir()
    environment = {"SN17_GATEWAY_KEY": GUEST, "XDG_STATE_HOME": str(tmp_path / "home")}
    with (
        GatewayProcess(tmp_path / "gateway") as gateway,
        Worker(gateway, lambda prompt: splat_bytes(3, 2000)) as worker,
    ):
        environment["SN17_GATEWAY_URL"] = gateway.url

        def generate(output: Path) -> Terminal:
            command = [*SN17, "generate", "a red cube", "-o", str(output)]
            return Terminal(command, columns=300, environment=environment)

        # The note of what is under way fits, the asset does not.
        os.truncate(full / "filler", (full / "filler").stat().st_size - 8192)
        says_so(generate(full / "cube.ply"), full / "cube.ply")
        os.truncate(full / "filler", 0)
        again = generate(full / "cube.ply")
        assert again.wait() == Exit.DONE, again.text
        assert len(worker.seen) == 1, json.dumps(worker.seen)
    assert (full / "cube.ply").stat().st_size > 0
