"""What others wrote is shown and never obeyed, on every kind of output."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from sn17.console import new_console, print_json, say
from sn17_contract.tasks import TaskKind
from sn17_contract.text import neutral_json, neutralise
from sn17_miner.journal.journal import Journal
from sn17_service.logs import HumanFormatter

HOSTILE = [
    "\x1b[2J\x1b[Hall is well",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\click",
    "\x9b31mred",
    "accepted\rrejected",
    "a\n12:00:00.000 INFO    sn17: forged",
    "a\u2028b",
    "abc\u202etxt.exe",
    "\x08\x08\x08gone",
    "\udc9b lone surrogate",
]
text = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x07\r\n\t\u202e\u2028[]/:\\")), max_size=60
) | st.sampled_from(HOSTILE)


def steering(shown: str) -> set[str]:
    """Characters that a terminal or a reader of lines would obey."""
    return {c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - set(
        "\n\u200c\u200d"
    )


@given(text)
def test_a_neutral_text_is_one_harmless_line_and_stays_so(given_text: str) -> None:
    shown = neutralise(given_text)
    assert not steering(shown)
    assert "\n" not in shown
    assert neutralise(shown) == shown
    if given_text.isprintable():
        assert shown == given_text


@given(st.dictionaries(text, text, max_size=3))
def test_json_keeps_its_value(value: dict[str, str]) -> None:
    document = json.dumps(value, ensure_ascii=False)
    assert json.loads(neutral_json(document)) == value
    assert not steering(neutral_json(document))


@given(text)
def test_the_console_shows_and_never_obeys(given_text: str) -> None:
    table = Table(given_text, title=given_text)
    table.add_row(given_text)
    table.add_row(Text(given_text))
    out = io.StringIO()
    with redirect_stdout(out):
        console = new_console()
        console.print(table)
        console.print(given_text)
        console.print(Text(given_text))
        say(given_text)
        print_json(json.dumps(given_text, ensure_ascii=False))
    assert not steering(out.getvalue())


@pytest.mark.parametrize("markup", ["[red]a[/]", "[/]", "[link=http://evil]x[/link]", ":warning:", "[bold"])
def test_markup_of_others_is_text(markup: str) -> None:
    table = Table("prompt")
    table.add_row(markup)
    out = io.StringIO()
    with redirect_stdout(out):
        console = new_console()
        console.print(table)
        console.print(markup)
    assert out.getvalue().count(markup) == 2


@given(text, text)
def test_a_log_line_for_people_is_one_harmless_line(message: str, extra: str) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": (message,), "name": "sn17", "prompt": extra})
    shown = HumanFormatter().format(record)
    assert not steering(shown)
    assert "\n" not in shown


@given(text)
def test_a_traceback_forges_no_line(message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "name": "sn17", "exc_info": sys.exc_info()})
    first, *rest = HumanFormatter().format(record).split("\n")
    assert first.endswith("sn17: failed")
    assert all(line.startswith("  ") for line in rest)
    assert not steering("\n".join(rest))


@pytest.fixture
def hostile_state(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.sqlite")
    for n, prompt in enumerate(HOSTILE[:-1]):
        journal.task_pulled(
            task_id=f"t{n}\x1b[31m",
            validator=f"\x1b[2J5V{n}",
            kind=TaskKind.TEXT,
            prompt=prompt,
            threshold=0.6,
            throttle=30,
            assigned_at=1,
        )
    journal.close()
    return tmp_path


@pytest.mark.parametrize("more", [[], ["--json"], ["explain", "1"], ["explain", "6", "--json"]])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_tasks_of_a_hostile_validator(hostile_state: Path, more: list[str], encoding: str) -> None:
    command = [sys.executable, "-m", "sn17", "tasks", *more, "--state-dir", str(hostile_state)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not steering(done.stdout.decode(encoding))
    if more == ["--json"]:
        assert [t["prompt"] for t in json.loads(done.stdout)["tasks"]] == HOSTILE[-2::-1]
