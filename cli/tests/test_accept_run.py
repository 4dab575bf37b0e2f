"""`sn17 accept` and `sn17 watch` against real worker and fixer processes."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sn17.accept.record import Record
from sn17.commands import app
from sn17.up.process import ManagedProcess, ProcessSpec
from typer.testing import CliRunner

Services = tuple[str, str]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Base URLs of a worker and a fixer."""
    folder = tmp_path_factory.mktemp("accept")
    common = {"SN17_PORT": "0", "SN17_OPS_PORT": "0", "SN17_MEMORY_SOURCE": "process"}
    worker_env = {
        "SN17_SPOOL_DIR": str(folder / "spool"),
        "SN17_PROCEDURAL_MAX_GAUSSIANS": "30000",
        "SN17_MEMORY_LIMIT_BYTES": str(1 << 30),
    }
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(90)

    worker = ManagedProcess(
        ProcessSpec("worker", "sn17_trellis", ("serve",), {**common, **worker_env}), folder
    )
    fixer = ManagedProcess(ProcessSpec("fixer", "sn17_fixer", (), common), folder)
    try:
        urls = tuple(f"http://127.0.0.1:{wait(process.start()).port}" for process in (worker, fixer))
        yield urls[0], urls[1]
    finally:
        for process in (worker, fixer):
            wait(process.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def accept(services: Services, *arguments: str) -> Any:
    return invoke("accept", "--worker", services[0], "--fixer", services[1], *arguments)


def test_smoke_passes_and_names_what_it_saw(services: Services) -> None:
    answer = accept(services, "--smoke")
    assert answer.exit_code == 0, answer.output
    assert "a worker makes an asset" in answer.output
    assert "the fixer encodes it" in answer.output


def test_smoke_fails_below_its_minimum(services: Services) -> None:
    answer = accept(services, "--smoke", "--minimum-gaussians", "9000000")
    assert answer.exit_code == 1
    assert "FAIL" in answer.output


@pytest.mark.parametrize("policy", ["measured", "phase1"])
def test_a_run_writes_its_verdict(services: Services, tmp_path: Path, policy: str) -> None:
    file = tmp_path / "verdict.json"
    answer = accept(
        services, "--generations", "2", "--policy", policy, "--gaussians-mean", "100", "--report", str(file),
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    verdict = json.loads(file.read_text())
    assert verdict["passed"] is True
    assert verdict["criteria"]["policy"] == policy
    assert verdict["criteria"]["thresholds"]["gaussians_mean"] == 100
    assert [s["seed"] for s in verdict["samples"]] == [1701, 1702]
    assert all(0 < s["memory_ratio"] < 0.8 for s in verdict["samples"])
    names = {check["name"] for check in verdict["checks"]}
    assert ("opacity std where phase1 acted" in names) is (policy == "phase1")


def test_a_record_says_what_made_the_assets_and_shows_them(
    services: Services, miner: str, tmp_path: Path
) -> None:
    file, token = tmp_path / "record.json", tmp_path / "token"
    token.write_text("right\n")
    made = accept(services, "--generations", "1", "--gaussians-mean", "100", "--record", str(file))
    assert made.exit_code == 0, made.output
    watched = invoke(
        "watch", "--miner", miner, "--token-file", str(token), "--submissions", "10", "--past",
        "--record", str(file),
    )  # fmt: skip
    found = Record.model_validate_json(file.read_bytes())
    assert found.sn17.startswith("sn17 ")
    assert [each.backend for each in found.workers] == ["procedural"]
    assert found.workers[0].identity.startswith("procedural")
    assert [(render.prompt, render.seed) for render in found.renders] == [
        (sample["prompt"], sample["seed"]) for sample in found.samples
    ]
    assert b64decode(found.renders[0].png).startswith(b"\x89PNG")
    assert found.watch is not None
    assert found.watch.outcomes["accepted"] >= 1
    assert found.passed is (watched.exit_code == 0)
    assert "right" not in file.read_text()


def test_what_is_no_record_is_left_as_it_is(miner: str, tmp_path: Path) -> None:
    file, token = tmp_path / "other.json", tmp_path / "token"
    file.write_text("{}")
    token.write_text("right\n")
    answer = invoke(
        "watch",
        "--miner",
        miner,
        "--token-file",
        str(token),
        "--submissions",
        "1",
        "--past",
        "--record",
        str(file),
    )
    assert answer.exit_code == 2
    assert "is no record of" in answer.output
    assert file.read_text() == "{}"


def test_a_local_run_needs_neither_cluster_nor_addresses(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    answer = invoke(
        "accept",
        "--local",
        "procedural",
        "--generations",
        "1",
        "--gaussians-mean",
        "100",
        "--record",
        str(file),
    )
    assert answer.exit_code == 0, answer.output
    assert Record.model_validate_json(file.read_bytes()).passed


def test_a_target_that_is_missed_fails_the_run(services: Services) -> None:
    answer = accept(
        services, "--generations", "2", "--generation-seconds", "0.000001", "--gaussians-mean", "1"
    )
    assert answer.exit_code == 1
    assert "slowest generation" in answer.output


def test_what_cannot_run_says_why(services: Services) -> None:
    gone = invoke("accept", "--worker", "http://127.0.0.1:9", "--fixer", services[1], "--generations", "1")
    assert gone.exit_code == 2
    assert "did not answer" in gone.output
    half = invoke("accept", "--worker", services[0])
    assert half.exit_code == 2
    assert "--fixer" in half.output


def booked(n: int, outcome: str | None, validator: str = "5abc", uid: int = 7) -> dict[str, Any]:
    """A task as the miner's ops port shows it."""
    return {
        "n": n,
        "task_id": f"t{n}",
        "validator": validator,
        "uid": uid,
        "kind": "text",
        "prompt": "a red sphere",
        "enhancement": "none",
        "state": "done" if outcome else "generating",
        "outcome": outcome,
        "reason": None,
        "score": None,
        "pulled_at": 4e9,
        "finished_at": None,
        "submits": 1,
        "attempts": [],
        "events": None,
    }


class _Miner(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.headers["Authorization"] != "Bearer right":
            self.send_error(401)
            return
        outcomes = ["accepted"] * 6 + ["rejected"] * 4 + [None]
        tasks = [booked(n, outcome) for n, outcome in enumerate(outcomes)]
        body = json.dumps({"tasks": tasks, "counts": {}, "windows": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def miner() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Miner)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_watch_judges_success_and_yield(miner: str, tmp_path: Path) -> None:
    token, file = tmp_path / "token", tmp_path / "verdict.json"
    token.write_text("right\n")
    arguments = ["--miner", miner, "--token-file", str(token), "--submissions", "10", "--report", str(file)]
    answer = invoke("watch", *arguments)
    assert answer.exit_code == 0, answer.output
    assert "10/10 submissions" in answer.output
    verdict = json.loads(file.read_text())
    assert verdict["outcomes"] == {"accepted": 6, "rejected": 4}
    assert [check["measured"] for check in verdict["checks"]] == ["60.0%"] * 4
    assert [check["name"] for check in verdict["checks"]][2:] == [
        "success, uid 7 (5abc)",
        "yield, uid 7 (5abc)",
    ]
    assert verdict["validators"] == {"5abc": {"uid": 7, "outcomes": {"accepted": 6, "rejected": 4}}}
    wanted = tmp_path / "targets.json"
    wanted.write_text('{"validators": {"7": {"least": 0.7, "expected": 0.8}}}')
    answer = invoke("watch", *arguments, "--targets", str(wanted))
    assert answer.exit_code == 1
    assert "70% least, 80% expected" in answer.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ('{"validators": {"7": {"least": 0.9, "expected": 0.8}}}', "least is above expected"),
        ('{"validators": {"7": {"least": 44, "expected": 81}}}', "validators.7.least"),
        ('{"targets": {}}', "targets"),
    ],
)
def test_targets_that_make_no_sense_are_refused(miner: str, tmp_path: Path, text: str, said: str) -> None:
    token, wanted = tmp_path / "token", tmp_path / "targets.json"
    token.write_text("right")
    wanted.write_text(text)
    answer = invoke("watch", "--miner", miner, "--token-file", str(token), "--targets", str(wanted))
    assert answer.exit_code == 2
    assert said in answer.output


def test_watch_says_that_the_token_is_wrong(miner: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong")
    answer = invoke("watch", "--miner", miner, "--token-file", str(token))
    assert answer.exit_code == 2
    assert "admin token" in answer.output
    assert "wrong" not in answer.output
