"""``sn17 gateway key`` against a running gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sn17.commands import app
from sn17_http import own_request
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "services/gateway/tests"))
from gateway_process import GatewayProcess

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def run(gateway: GatewayProcess, *arguments: str) -> tuple[int, str, str]:
    where = ["--url", gateway.ops_url, "--token-file", str(gateway.folder / "token")]
    done = RUNNER.invoke(app, ["gateway", "key", *arguments, *where])
    return done.exit_code, done.stdout, done.stderr


def add_task(gateway: GatewayProcess, key: str) -> int:
    answer = own_request(
        "POST",
        f"{gateway.url}/add_task",
        json={"prompt": "a red robot"},
        headers={"x-api-key": key},
        timeout=30,
    )
    return answer.status_code


def test_a_key_works_until_it_is_revoked(gateway: GatewayProcess) -> None:
    code, key, note = run(gateway, "create", "studio", "--concurrent", "2", "--tag", "GPU")
    assert code == 0
    key = key.strip()
    assert add_task(gateway, key) == 200
    code, listed, _ = run(gateway, "list", "--json")
    assert code == 0
    (state,) = json.loads(listed)
    assert (state["name"], state["concurrent"], state["tags"]) == ("studio", 2, ["gpu"])
    assert state["id"] in note
    assert key not in listed + note
    code, table, _ = run(gateway, "list")
    assert (code, "studio" in table) == (0, True)
    assert run(gateway, "revoke", state["id"])[:2] == (0, f"studio: key {state['id']} is revoked\n")
    assert add_task(gateway, key) == 401


def test_mistakes_are_told_in_one_line(gateway: GatewayProcess, tmp_path: Path) -> None:
    cases = [
        (run(gateway, "revoke", "nobody"), 1),
        (run(gateway, "create", ""), 2),
        (run(gateway, "create", "x", "--tag", "a b"), 2),
        (run(gateway, "create", "x", "--kind", "generic"), 2),
    ]
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    for url, file, expected in (
        (gateway.ops_url, wrong, 2),
        (gateway.url, wrong, 1),
        ("http://127.0.0.1:1", wrong, 2),
        ("nonsense", wrong, 2),
        (gateway.ops_url, tmp_path / "nowhere", 2),
    ):
        done = RUNNER.invoke(app, ["gateway", "key", "list", "--url", url, "--token-file", str(file)])
        cases.append(((done.exit_code, done.stdout, done.stderr), expected))
    for (code, out, error), expected in cases:
        assert (code, out) == (expected, ""), error
        assert error.startswith("sn17 gateway: ")
        assert error.count("\n") == 1
