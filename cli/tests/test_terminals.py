"""All commands in terminals of several sizes and kinds, and Ctrl-C at any moment."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sn17_contract.tasks import Outcome, TaskKind
from sn17_miner.journal.journal import Journal
from sn17_splats import write_ply
from table_samples import cloud
from terminal import Terminal

SN17 = [sys.executable, "-m", "sn17"]
ENDED = re.compile(r"ended by Ctrl-C")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("state")
    journal = Journal(made / "journal.sqlite")
    for n in range(30):
        task, _ = journal.task_pulled(
            task_id=f"t{n}",
            validator=f"5Validator{n}",
            kind=TaskKind.TEXT,
            prompt="ein grüner Würfel und 红色的球 " * 4,
            threshold=0.6,
            throttle=30,
            assigned_at=1,
        )
        journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=0.8, detail="because " * 30)
    journal.close()
    (made / "a.ply").write_bytes(write_ply(cloud(1)))
    return made


COMMANDS = {
    "tasks": (["tasks", "--state-dir", "."], 0),
    "explain": (["tasks", "explain", "3", "--state-dir", "."], 0),
    "inspect": (["splat", "inspect", "a.ply"], 4),
    "help": (["--help"], 0),
    "nothing": (["status"], 2),
}
KINDS: dict[str, dict[str, str]] = {
    "xterm": {},
    "dumb": {"TERM": "dumb"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}

SCREENS = [(24, 80, "xterm"), (50, 200, "xterm"), (24, 80, "dumb"), (50, 200, "ascii")]


@pytest.mark.parametrize(("rows", "columns", "kind"), SCREENS)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_longer_than_the_terminal(
    folder: Path, name: str, rows: int, columns: int, kind: str
) -> None:
    arguments, code = COMMANDS[name]
    terminal = Terminal([*SN17, *arguments], rows=rows, columns=columns, cwd=folder, environment=KINDS[kind])
    assert terminal.wait() == code, terminal.text
    assert "Traceback" not in terminal.text
    if name != "nothing":
        assert max(len(line) for line in terminal.text.splitlines()) <= columns, terminal.text
    if kind == "dumb":
        assert "\x1b" not in terminal.raw
    if kind == "ascii":
        assert terminal.raw.isascii()


@pytest.mark.parametrize("name", ["tasks", "explain", "inspect"])
def test_what_is_piped_is_whole(folder: Path, name: str) -> None:
    done = subprocess.run(
        [*SN17, *COMMANDS[name][0]],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "no room for" not in done.stdout, done.stdout
    assert "…" not in done.stdout
    if name != "inspect":
        assert "红色的球" in done.stdout
    assert "\x1b" not in done.stdout


def handled(terminal: Terminal) -> bool:
    """Whether the command has taken the signals over: from its first moment in our own code on.

    Until it is executed the process is a copy of this one, with this one's handlers.
    """
    process = Path(f"/proc/{terminal.pid}")
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")[:-1]
        status = (process / "status").read_text()
    except OSError:
        return True
    if words != [word.encode() for word in terminal.command]:
        return "State:\tZ" in status
    caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16)  # type: ignore[index]
    return bool(caught & (1 << (signal.SIGTERM - 1)))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([name for name in COMMANDS if name != "nothing"]),
    moment=st.floats(0, 3),
    again=st.one_of(st.none(), st.floats(0, 0.3)),
)
def test_ctrl_c_at_any_moment_is_one_sentence(
    folder: Path, name: str, moment: float, again: float | None
) -> None:
    arguments, code = COMMANDS[name]
    terminal = Terminal([*SN17, *arguments], cwd=folder)
    while not handled(terminal):
        time.sleep(0.002)
    # The moment is what is drawn; nothing is waited for.
    time.sleep(moment)
    terminal.press_ctrl_c()
    if again is not None:
        time.sleep(again)
        terminal.press_ctrl_c()
    ended = terminal.wait(60)
    assert ended in (code, 130), (ended, terminal.text)
    assert "Traceback" not in terminal.text
    assert "Exception" not in terminal.text
    assert terminal.raw.count("\x1b[?25l") <= terminal.raw.count("\x1b[?25h")
    if ended == 130 and again is None:
        assert len(ENDED.findall(terminal.text)) == 1, terminal.text


@pytest.fixture
def hanging_up() -> Iterator[str]:
    """The address of a server that ends every connection without an answer."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_lasting_bar_gives_the_cursor_back(tmp_path: Path, hanging_up: str) -> None:
    command = [*SN17, "generate", "a red cube", "--url", hanging_up, "--key", "x"]
    terminal = Terminal(command, cwd=tmp_path, environment={"NO_PROXY": "*"})
    terminal.until("connection lost")
    assert "\x1b[?25l" in terminal.raw
    terminal.press_ctrl_c()
    assert terminal.wait(60) == 130
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h")
    assert "stopped: 0 under way; 1 not begun" in terminal.text
    # The key of the request is all that stays: the same command goes on with the same task.
    assert os.listdir(tmp_path) == [".a-red-cube.ply.sn17-task"]
