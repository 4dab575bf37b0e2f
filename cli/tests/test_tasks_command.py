"""``sn17 tasks`` over a real journal and a real HTTP server."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sn17.tasks import app
from sn17_contract.tasks import GivenUpReason, Lane, Outcome, TaskKind
from sn17_miner.core.records import Assignment, ValidatorRecord
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.views import list_tasks
from typer.testing import CliRunner

ENDS = [
    (Outcome.ACCEPTED, None),
    (Outcome.SKIPPED, None),
    (Outcome.GIVEN_UP, GivenUpReason.NO_WORKER),
]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.sqlite")
    for n, (outcome, reason) in enumerate(ENDS):
        task, _ = journal.task_pulled(
            task_id=f"t{n}",
            validator="5Validator",
            kind=TaskKind.TEXT,
            prompt="a [red] cube",
            threshold=0.6,
            throttle=30,
            assigned_at=1,
        )
        journal.finished(
            task.n, outcome=outcome, reason=reason, score=0.8 if n == 0 else None, detail="because"
        )
    journal.task_pulled(
        task_id="image",
        validator="5Validator",
        kind=TaskKind.IMAGE,
        prompt="iVBORw0" * 99,
        threshold=0.6,
        throttle=30,
        assigned_at=1,
    )
    journal.close()
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_shows_outcomes_with_success_and_yield_together(state: Path) -> None:
    output = run("--state-dir", str(state))
    assert "given_up: no_worker" in output
    assert "a [red] cube" in output
    assert "iVBOR" not in output
    assert "50.0%" in output
    assert "33.3%" in output


def test_filters_and_json(state: Path) -> None:
    told = json.loads(run("--state-dir", str(state), "--json", "--task-id", "t1", "--state", "done"))
    assert [task["task_id"] for task in told["tasks"]] == ["t1"]
    assert told["windows"][1]["yield"] == pytest.approx(1 / 3)


def test_the_summary_is_of_the_validator_asked_for(state: Path) -> None:
    journal = Journal(state / "journal.sqlite")
    journal.save_validator(ValidatorRecord("5Validator", 27, "10.0.0.1", 8000, 5000.0, 0.0, "{}"))
    task, _ = journal.task_pulled(
        task_id="other",
        validator="5Other",
        kind=TaskKind.TEXT,
        prompt="a blue cube",
        threshold=0.6,
        throttle=30,
        assigned_at=1,
        record=ValidatorRecord("5Other", 128, "10.0.0.2", 8000, 5000.0, 0.0, "{}"),
    )
    journal.finished(task.n, outcome=Outcome.REJECTED, reason=None, score=None, detail="")
    journal.close()
    for chosen, ended in (("27", 3), ("5Vali", 3), ("128", 1), ("5Other", 1), ("99", 0)):
        told = json.loads(run("--state-dir", str(state), "--json", "--validator", chosen))
        assert told["windows"][1]["ended"] == ended, chosen
        assert sum(told["counts"].values()) == len(told["tasks"]) == (4 if ended == 3 else ended)
    told = json.loads(run("--state-dir", str(state), "--json"))
    both = {v["uid"]: (v["validator"], v["success"]) for v in told["windows"][1]["validators"]}
    assert both == {27: ("5Validator", 0.5), 128: ("5Other", 0.0)}
    output = run("--state-dir", str(state))
    assert re.search(r"\b27 │ 5Valida", output)
    assert re.search(r"\b128 │ 5Other", output)
    assert "uid 128 5Other" in run("explain", str(task.n), "--state-dir", str(state))


def test_explain_tells_the_story(state: Path) -> None:
    output = run("explain", "3", "--state-dir", str(state))
    assert "pulled" in output
    assert "because" in output


def test_what_is_not_there_is_said(tmp_path: Path, state: Path) -> None:
    for arguments, code in (
        (["--state-dir", str(tmp_path / "nowhere")], 2),
        (["explain", "99", "--state-dir", str(state)], 1),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == code
        assert "sn17 tasks:" in result.output


def test_over_the_ops_port(state: Path, tmp_path: Path) -> None:
    listing = list_tasks(state / "journal.sqlite", limit=5).model_dump_json(by_alias=True).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.headers.get("Authorization") == "Bearer secret"
            body = listing if good else b'{"code": "unauthorized", "detail": "send the token"}'
            self.send_response(200 if good else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        token = tmp_path / "token"
        token.write_text("secret\n")
        assert "no_worker" in run("--url", url, "--token-file", str(token))
        result = CliRunner().invoke(app, ["--url", url])
        assert result.exit_code == 2
        assert "send the token" in result.output
    finally:
        server.shutdown()


def test_gateways_count_apart_and_a_fast_generation_is_seen(state: Path) -> None:
    journal = Journal(state / "journal.sqlite")
    for n in range(3):
        task, _ = journal.task_offered(
            "home",
            task_id=f"g{n}",
            kind=TaskKind.TEXT,
            prompt="a green cube",
            assignment=Assignment("http://node:8404", "token", "sn17", "404-3dgs", 7, 601.0),
            assigned_at=1.0,
            threshold=0.6,
        )
        if n == 2:
            journal.attempt_started(task.n, worker="http://w", boot_id="b", seed=7, round_=0, lane=Lane.FAST)
            continue
        journal.finished(
            task.n, outcome=(Outcome.ACCEPTED, Outcome.GIVEN_UP)[n], reason=None, score=None, detail=""
        )
    journal.close()
    told = json.loads(run("--state-dir", str(state), "--json"))
    window = told["windows"][1]
    assert (window["ended"], window["success"]) == (3, 0.5), "validators alone"
    assert [(g["door"], g["ended"], g["success"]) for g in window["gateways"]] == [("home", 2, 0.5)]
    told = json.loads(run("--state-dir", str(state), "--json", "--door", "home"))
    assert {task["door"] for task in told["tasks"]} == {"home"}
    assert told["windows"][1]["ended"] == 0
    output = run("--state-dir", str(state), "--door", "home")
    assert "gateway home" in output
    assert re.search(r"a green cube .* generating .* fast", output)
    story = run("explain", str(told["tasks"][0]["n"]), "--state-dir", str(state))
    assert "from gateway home" in story
    assert "fast lane" in story
