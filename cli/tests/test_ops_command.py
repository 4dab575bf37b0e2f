"""sn17 replay and explain as a person calls them; what cannot be done is one sentence and exit code 1."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sn17.cluster.access import ClusterError
from sn17.ops import app
from sn17.ops.replay import seconds
from sn17_operator.adapters import record
from sn17_operator.core.readings import Signal
from sn17_operator.core.replay import RecordedWorker, Recording
from typer.testing import CliRunner

NOW = 1_700_000_000.0
RUNNER = CliRunner()
EXPLANATION = {
    "miner": "sn17",
    "at": "2026-01-01T00:00:00Z",
    "bootId": "b",
    "lifeId": "l",
    "containerId": "c",
    "strategy": "Swap",
    "intent": None,
    "pod": "w1",
    "node": "n1",
    "state": "Degraded",
    "verdict": "Degraded",
    "message": "full",
    "rules": [
        {
            "rule": "MemoryHigh",
            "outcome": "Breach",
            "message": "unreclaimable memory is 85% of the limit",
            "value": 0.85,
            "threshold": 0.8,
            "sampleAgeSeconds": 4.2,
            "dwellLeftSeconds": 0.0,
            "queries": ["sn17_memory_unreclaimable_bytes[95s]"],
        }
    ],
    "budget": {
        "expected": 4,
        "available": 4,
        "unavailable": 0,
        "inFlight": 0,
        "maxUnavailable": 1,
        "qualityVerdicts": 0,
        "maxUnhealthy": 2,
    },
    "next": "Cordon: MemoryHigh",
}


@pytest.fixture
def leak(tmp_path: Path) -> Path:
    times = [NOW + 15.0 * i for i in range(1, 201)]
    series = {
        Signal.MEMORY: tuple((at, 1000.0 * min(0.99, 0.3 + i / 200)) for i, at in enumerate(times)),
        Signal.LIMIT: tuple((at, 1000.0) for at in times),
        Signal.UP: tuple((at, 1.0) for at in times),
    }
    boots = (("b", tuple((at, 1.0) for at in times)),)
    path = tmp_path / "day.json.gz"
    record.write(Recording(NOW, times[-1], 15.0, (RecordedWorker("u", "w1", "n", boots, series),)), path)
    return path


def test_replay_of_a_file(leak: Path) -> None:
    result = RUNNER.invoke(app, ["replay", "--file", str(leak), "--json"])
    assert result.exit_code == 0, result.output
    (report,) = json.loads(result.output)["reports"]
    assert [(action["worker"], action["rule"]) for action in report["actions"]] == [("w1", "MemoryHigh")]
    assert (report["actions"][0]["sparedSeconds"], report["actions"][0]["spentSeconds"]) == (0.0, 180.0)
    table = RUNNER.invoke(app, ["replay", "--file", str(leak)])
    assert "MemoryHigh" in table.output
    assert "-3 min" in table.output


def test_replay_with_other_settings(leak: Path, tmp_path: Path) -> None:
    spec = tmp_path / "miner.yaml"
    spec.write_text("spec: {targetRef: {name: x}, rules: {memory: {action: 'Off'}}}")
    result = RUNNER.invoke(app, ["replay", "--file", str(leak), "--spec", str(spec), "--json"])
    (report,) = json.loads(result.output)["reports"]
    assert report["actions"] == []


def test_two_specs_over_one_recording_show_what_would_have_been_different(leak: Path, tmp_path: Path) -> None:
    specs = []
    for name, action in (("as-is", "Enforce"), ("blind", "'Off'")):
        specs.append(tmp_path / f"{name}.yaml")
        specs[-1].write_text(f"rules: {{memory: {{action: {action}}}}}")
    arguments = ["replay", "--file", str(leak), "--spec", str(specs[0]), "--spec", str(specs[1])]
    reports = json.loads(RUNNER.invoke(app, [*arguments, "--json"]).output)["reports"]
    assert [(Path(r["spec"]).stem, len(r["actions"])) for r in reports] == [("as-is", 1), ("blind", 0)]
    table = RUNNER.invoke(app, arguments, env={"COLUMNS": "200"})
    assert "What if" in table.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay"], "either --prometheus or --file"),
        (["replay", "--file", "none.json"], "none.json"),
        (["replay", "--prometheus", "http://127.0.0.1:9", "--since", "1h"], "unreachable"),
        (["replay", "--prometheus", "http://127.0.0.1:9", "--since", "yesterday"], "not a time span"),
        (["explain", "w1", "--url", "ftp://x"], "http"),
        (["explain", "w1", "--url", "http://127.0.0.1:9"], "no explanation"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[str], told: str) -> None:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    environment = {"KUBECONFIG": str(tmp_path / "none")}
    result = RUNNER.invoke(app, ["cordon", "w1"], env=environment)
    assert result.exit_code == 2
    assert "no cluster" in result.output


@pytest.mark.parametrize(
    ("text", "expected"), [("90m", 5_400), ("24h", 86_400), ("1.5d", 129_600), ("30s", 30)]
)
def test_time_spans(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "24", "-1h", "1w"])
def test_what_is_no_time_span(text: str) -> None:
    with pytest.raises(ClusterError):
        seconds(text)


@pytest.fixture
def operator_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/explain/w1"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(EXPLANATION).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_explain(operator_url: str) -> None:
    result = RUNNER.invoke(app, ["explain", "w1", "--url", operator_url], env={"COLUMNS": "160"})
    assert result.exit_code == 0
    for word in (
        "MemoryHigh",
        "Breach",
        "0.85",
        "4 s",
        "sn17_memory_unreclaimable_bytes[95s]",
        "next: Cordon",
    ):
        assert word in result.output
    raw = RUNNER.invoke(app, ["explain", "w1", "--url", operator_url, "--json"])
    assert json.loads(raw.output) == EXPLANATION
