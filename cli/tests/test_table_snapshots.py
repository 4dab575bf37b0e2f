"""Every table of the command line as it looks at 80 and 200 columns, in a pipe, and without UTF-8.

``SN17_UPDATE_GOLDEN=1`` writes the files anew.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import RenderableType
from sn17.accept.tables import check_table
from sn17.accept.verdict import Check, Grade
from sn17.console import PIPED_WIDTH, console_type
from sn17.gateway.command import key_table
from sn17.ops.tables import explanation, report_tables
from sn17.splat.tables import comparison_table, diagnosis_lines, statistics_table, steps_table
from sn17.tasks.tables import story, task_table, window_table
from sn17.up.report import TaskRecord, WorkerRecord, build
from sn17.up.tables import render
from sn17_contract.explain import Explanation
from sn17_contract.gateway import KeyKind, KeyState
from sn17_contract.replay import ReplayAnswer
from sn17_contract.tasks import VALIDATORS, Outcome, TaskView, Window
from sn17_fixer.compare import compare
from sn17_fixer.diagnosis import diagnose
from sn17_fixer.model import Step
from sn17_splats import statistics
from table_samples import cloud

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = {"80": (80, "utf-8"), "200": (200, "utf-8"), "pipe": (PIPED_WIDTH, "utf-8"), "ascii": (80, "ascii")}


def task(n: int) -> TaskView:
    attempt = {
        "key": f"t{n}-0",
        "worker": "http://sn17-trellis-0.sn17-trellis.sn17.svc:10006",
        "seed": 17,
        "state": "fixed",
        "started_at": 1_700_000_001.0,
        "finished_at": 1_700_000_013.4,
        "signal": "score",
        "score": 0.8123,
        "confidence": 0.9,
        "failure": None,
        "error": None,
        "lane": "exact",
    }
    told = (
        ("pulled", "a task of uid 128"),
        ("generate", "on sn17-trellis-0, seed 17, with 240 s left of the time that the validator gives"),
        ("accepted", "score 0.812"),
    )
    events = [
        {"at": 1_700_000_000.0 + 6 * i, "event": event, "detail": detail}
        for i, (event, detail) in enumerate(told)
    ]
    return TaskView.model_validate(
        {
            "n": n,
            "task_id": f"0b7a{n:04}-1111",
            "validator": "5HdS94TFqxT1H8bXAPLXTpjW5mfYgXvmSFXCbj2h5fpXKx2d",
            "uid": 128,
            "door": VALIDATORS,
            "kind": "text",
            "prompt": "a small lighthouse made of red bricks beside a wooden boat, ein grüner Würfel",
            "enhancement": "none",
            "state": "done",
            "outcome": "accepted" if n % 2 else "given_up",
            "reason": None if n % 2 else "validator_unreachable",
            "score": 0.8123 if n % 2 else None,
            "pulled_at": 1_700_000_000.0,
            "finished_at": 1_700_000_025.25,
            "submits": 1,
            "attempts": [attempt],
            "events": events,
        }
    )


def tasks() -> list[RenderableType]:
    counts = {
        "ended": 1234,
        "outcomes": {"accepted": 1000, "rejected": 200, "given_up": 34},
        "reasons": {"no_worker": 30, "answer_lost": 4},
        "success": 0.81,
        "yield": 0.79,
        "in_time": 0.99,
    }
    own = {"validator": "5HdS94TFqxT1H8bXAPLX", "uid": 128}
    window = Window.model_validate({"hours": 4, **counts, "validators": [{**own, **counts}]})
    return [task_table([task(123_456), task(7)]), window_table([window]), *story(task(7))]


def run_tables() -> list[RenderableType]:
    hotkeys = ["5HdS94TFqxT1H8bXAPLX", "5FFApaS75bv5pJHfAp2F"]
    ended = (*[Outcome.ACCEPTED] * 1200, *[Outcome.REJECTED] * 31, Outcome.EXPIRED, None)
    records = [
        TaskRecord(f"t{n}", hotkeys[n % 2], "text", outcome, score=0.8, delivery_seconds=n / 7, uid=128)
        for n, outcome in enumerate(ended)
    ]
    workers = [
        WorkerRecord("trellis-1", "ready", 12_345, 412_345.6, 3 << 30, 4 << 30, 0),
        WorkerRecord("sn17-trellis-7d9f8c6b5-x2x7v", "unreachable", 0, None, 0, None, None),
    ]
    report = build(records, workers, validators=hotkeys, assigned={})
    events = ["  12.3 s  trellis-2: WorkerSwapped: the model process was swapped, memory 81 % of its limit"]
    return [width_aware(lambda width: render(report, events, width=width))]


def width_aware(make: Callable[[int], RenderableType]) -> RenderableType:
    class Late:
        def __rich_console__(self, console: Any, options: Any) -> Any:
            yield make(console.width)

    return Late()


def steering() -> list[RenderableType]:
    rule = {
        "rule": "GaussiansLow",
        "outcome": "Breach",
        "message": "the mean of 812 generations is below the threshold, and that of the others is not",
        "value": 123_456.7,
        "threshold": 150_000.0,
        "sampleAgeSeconds": 4.2,
        "dwellLeftSeconds": 31.0,
        "queries": ["sn17_generation_gaussians_sum[95s]"],
    }
    found = {
        "miner": "sn17", "at": "2026-01-01T00:00:00Z", "bootId": "b", "lifeId": "l", "containerId": "c",
        "strategy": "Swap", "intent": None, "pod": "sn17-trellis-7d9f8c6b5-x2x7v", "node": "gpu-1",
        "state": "Degraded", "verdict": "Degraded", "message": "small assets",
        "rules": [rule, {**rule, "rule": "MemoryHigh", "outcome": "Ok", "value": 0.4213, "threshold": 0.8}],
        "budget": {"expected": 4, "available": 4, "unavailable": 0, "inFlight": 0, "maxUnavailable": 1,
                   "qualityVerdicts": 0, "maxUnhealthy": 2},
        "next": "Cordon: GaussiansLow",
    }  # fmt: skip
    action = {
        "at": "2026-01-01T00:10:00Z", "worker": "sn17-trellis-7d9f8c6b5-x2x7v", "bootId": "b", "lifeId": "l",
        "rule": "MemoryHigh", "act": "Recycle", "message": "unreclaimable memory is 85% of the limit",
        "sparedSeconds": 7200.0, "spentSeconds": 300.0,
    }  # fmt: skip
    report = {
        "spec": "defaults", "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z", "workers": 4,
        "ticks": 5760, "actions": [action], "actionsPerWorkerAndDay": {"MemoryHigh": 0.25},
        "verdicts": {"Healthy": 5000, "Degraded": 760}, "heldBack": {"Budget": 12}, "shortCircuits": 0,
        "lostSeconds": 1234.5,
    }  # fmt: skip
    other = {**report, "spec": "stricter.yaml", "actions": []}
    answer = ReplayAnswer.model_validate({"reports": [report, other]})
    return [*explanation(Explanation.model_validate(found)), report_tables(answer)]


def keys() -> list[RenderableType]:
    state = KeyState(
        id="b3a1c2d4", name="studio in Graz", kind=KeyKind.COMPANY, concurrent=8, daily=1_000_000,
        tags=["gpu", "fast", "night-shift"], created_at=1_700_000_000.0, revoked_at=None,
    )  # fmt: skip
    return [key_table([state, state.model_copy(update={"revoked_at": 1_700_000_500.0, "tags": []})])]


def checks() -> list[RenderableType]:
    slow = "the third one; the others took 12 s"
    found = [
        Check("mean of gaussians", "412,345", "more than 400,000", Grade.PASS),
        Check("slowest generation", "31.2 s", "less than 30 s", Grade.FAIL, slow),
    ]
    return [check_table(found, "Acceptance, policy measured")]


def splats() -> list[RenderableType]:
    first, second = cloud(1), cloud(2)
    steps = [
        Step("sanitise", 12, {"rows_dropped": 12}),
        Step("opacity", 400_000, {"shift": -1.25, "scale": 0.5}),
    ]
    return [
        statistics_table(statistics(first)),
        diagnosis_lines(diagnose(first)),
        steps_table(steps),
        comparison_table(compare(first, second, size=32), ("a/very/long/path/to/first.ply", "second.spz")),
    ]


TABLES = {
    "tasks": tasks,
    "up": run_tables,
    "steering": steering,
    "gateway": keys,
    "accept": checks,
    "splat": splats,
}


def shown(parts: list[RenderableType], width: int, encoding: str) -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = console_type()(
        file=out, width=width, color_system=None, highlight=False, markup=False, emoji=False
    )
    for part in parts:
        console.print(part)
    lines = raw.getvalue().decode(encoding).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.mark.parametrize("form", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_looks_as_it_did(name: str, form: str) -> None:
    width, encoding = WIDTHS[form]
    text = shown(TABLES[name](), width, encoding)
    golden = GOLDEN / f"{name}.{form}.txt"
    if os.environ.get("SN17_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
    assert all(len(line) <= width for line in text.splitlines())


@pytest.mark.parametrize("name", TABLES)
def test_numbers_and_names_are_whole_at_every_width(name: str) -> None:
    """A word with digits in a narrow table stands in the widest one, too, unless dots say that it is cut."""
    widest = set(re.split(r"[\s│┃|]+", shown(TABLES[name](), PIPED_WIDTH, "utf-8")))
    for width in (60, 72, 80, 100, 132, 200):
        for word in re.split(r"[\s│┃|]+", shown(TABLES[name](), width, "utf-8")):
            if any(c.isdigit() for c in word) and "…" not in word and len(word) < 16:
                assert word in widest, (width, word)


def test_tables_are_made_in_one_place() -> None:
    source = Path(__file__).parents[1] / "src" / "sn17"
    users = [
        path.name
        for path in source.rglob("*.py")
        if re.search(r"from rich\.table import .*\bTable\b|rich\.table\.Table\(", path.read_text())
    ]
    assert users == ["fitted.py"]
