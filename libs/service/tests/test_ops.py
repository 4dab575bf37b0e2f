"""The ops port as kubelet, Prometheus and the operator use it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from sn17_contract.admin import Canary, CanaryAnswer
from sn17_http import own_request
from sn17_service import MemoryReading, MemoryUnavailable
from sn17_service.testing import ServiceThread

TOKEN = "correct horse"

ADMIN = ["drain", "resume", "cleanup", "canary", "exit"]


def test_probes_need_no_token(live: ServiceThread) -> None:
    assert live.ops("GET", "/health", token=None).json()["status"] == "healthy"
    assert live.ops("GET", "/ready", token=None).json() == {"ready": True, "reasons": {}}
    metrics = live.ops("GET", "/metrics", token=None)
    assert metrics.status_code == 200
    assert f'boot_id="{live.service.boot_id}",service="demo",version="1.2.3"' in metrics.text
    assert "python_gc" in metrics.text
    assert "process_cpu" in metrics.text
    assert "_created" not in metrics.text


def test_metrics_answer_in_the_format_that_is_asked_for(live: ServiceThread) -> None:
    url = f"http://127.0.0.1:{live.service.ops_port}/metrics"
    answer = own_request("GET", url, headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.rstrip().endswith("# EOF")


@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x"])
def test_admin_routes_need_the_token(live: ServiceThread, token: str | None) -> None:
    for route in ADMIN:
        answer = live.ops("POST", f"/admin/v1/{route}", token=token, json={})
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthorized"
        assert TOKEN not in answer.text


@pytest.mark.parametrize("content", [None, ""])
def test_without_a_token_admin_routes_are_off(
    new_live: Callable[..., ServiceThread], tmp_path: Path, content: str | None
) -> None:
    file = None
    if content is not None:
        file = tmp_path / "empty"
        file.write_text(content)
    live = new_live(admin_token_file=file).start()
    for route in ADMIN:
        answer = live.ops("POST", f"/admin/v1/{route}", token="x", json={})
        assert answer.status_code == 403
        assert "SN17_ADMIN_TOKEN_FILE" in answer.json()["detail"]


def test_a_rotated_token_counts_at_once(live: ServiceThread) -> None:
    path = live.service.settings.admin_token_file
    assert path is not None
    path.write_text("new")
    assert live.ops("POST", "/admin/v1/cleanup").status_code == 401
    assert live.ops("POST", "/admin/v1/cleanup", token="new").status_code == 200


def test_an_operators_lease_lapses_unless_renewed(live: ServiceThread, clock: Any) -> None:
    body = {"by": "operator", "reason": "MemoryHigh", "ttl_seconds": 60}
    answer = live.ops("POST", "/admin/v1/drain", json=body).json()
    assert answer["boot_id"] == live.service.boot_id
    assert answer["draining"] is True
    assert live.ops("GET", "/ready").json()["reasons"] == {"draining": "operator: MemoryHigh"}
    assert live.ops("GET", "/ready").status_code == 503
    assert live.metric("sn17_draining", by="operator") == 1
    assert live.metric("sn17_ready") == 0
    clock.now += 59
    live.ops("POST", "/admin/v1/drain", json=body)
    clock.now += 59
    assert live.ops("GET", "/ready").status_code == 503
    clock.now += 2
    assert live.ops("GET", "/ready").status_code == 200
    assert live.metric("sn17_draining", by="operator") == 0


def test_only_an_operators_lease_must_have_a_term(live: ServiceThread, clock: Any) -> None:
    answer = live.ops("POST", "/admin/v1/drain", json={"by": "operator", "reason": "x"}).json()
    assert answer["leases"][0]["expires_in_seconds"] == 60
    answer = live.ops("POST", "/admin/v1/drain", json={"by": "user", "reason": "debugging"}).json()
    assert [lease["by"] for lease in answer["leases"]] == ["user", "operator"]
    assert answer["leases"][0]["expires_in_seconds"] is None
    clock.now += 1e6
    assert live.ops("GET", "/ready").json()["reasons"] == {"draining": "user: debugging"}


def test_each_lease_is_lifted_by_its_owner_only(live: ServiceThread) -> None:
    live.ops("POST", "/admin/v1/drain", json={"by": "user", "reason": "mine"})
    answer = live.ops("POST", "/admin/v1/resume", json={"by": "operator"}).json()
    assert answer["result"] == {"lifted": False}
    assert answer["draining"] is True
    answer = live.ops("POST", "/admin/v1/resume", json={"by": "user"}).json()
    assert answer["result"] == {"lifted": True}
    assert live.ops("GET", "/ready").status_code == 200


MALFORMED: list[tuple[str, dict[str, object]]] = [
    ("drain", {}),
    ("drain", {"by": "nobody", "reason": "x"}),
    ("drain", {"by": "shutdown", "reason": "x"}),
    ("drain", {"by": "user", "reason": ""}),
    ("drain", {"by": "user", "reason": "x" * 501}),
    ("drain", {"by": "operator", "reason": "x", "ttl_seconds": 0}),
    ("drain", {"by": "operator", "reason": "x", "ttl_seconds": 1e9}),
    ("drain", {"by": "operator", "reason": "x", "extra": 1}),
    ("resume", {"by": "shutdown"}),
    ("exit", {}),
]


def test_a_malformed_order_changes_nothing(live: ServiceThread) -> None:
    for route, body in MALFORMED:
        answer = live.ops("POST", f"/admin/v1/{route}", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["code"] == "bad_request"
    assert live.ops("GET", "/ready").status_code == 200


def test_cleanup_and_canary_run_what_was_registered(live: ServiceThread) -> None:
    calls: list[str] = []
    live.service.on_cleanup(lambda: calls.append(threading.current_thread().name))
    answer = live.ops("POST", "/admin/v1/cleanup").json()
    assert len(calls) == 1
    assert answer["result"]["after"]["unreclaimable_bytes"] > 0
    assert live.ops("POST", "/admin/v1/canary").json()["code"] == "not_found"
    passed = Canary(
        ran=True,
        passed=True,
        reason=None,
        drift=0.0,
        first=True,
        same_bytes=True,
        gaussians=9,
        findings=(),
    )
    live.service.on_canary(lambda: passed)
    answer = CanaryAnswer.model_validate(live.ops("POST", "/admin/v1/canary").json())
    assert (answer.result, answer.life_id, answer.jobs_in_flight) == (passed, None, None)


def test_exit_wants_this_incarnation(live: ServiceThread) -> None:
    reasons: list[str] = []
    live.service.on_exit(reasons.append)
    answer = live.ops("POST", "/admin/v1/exit", json={"boot_id": "other"})
    assert answer.status_code == 409
    assert answer.json()["code"] == "boot_id_mismatch"
    assert reasons == []
    body = {"boot_id": live.service.boot_id, "reason": "MemoryHigh"}
    assert live.ops("POST", "/admin/v1/exit", json=body).status_code == 202
    assert live.join() == 75
    assert reasons == ["MemoryHigh"]


def test_a_reason_is_left_for_kubelet(new_live: Callable[..., ServiceThread], tmp_path: Path) -> None:
    message = tmp_path / "termination"
    message.touch()
    live = new_live(termination_log=message).start()
    assert live.stop(75, "MemoryHigh") == 75
    assert message.read_text() == "MemoryHigh"


def test_unknown_memory_gives_no_series(live: ServiceThread) -> None:
    class Blind:
        name = "blind"

        def read(self) -> MemoryReading:
            raise MemoryUnavailable("no files")

    assert live.metric("sn17_memory_unreclaimable_bytes") is not None
    live.service.memory = Blind()
    assert live.metric("sn17_memory_unreclaimable_bytes") is None
    assert live.metric("sn17_memory_limit_bytes") is None
    assert live.ops("GET", "/metrics").status_code == 200


def test_a_limit_and_the_marks_are_metrics(new_live: Callable[..., ServiceThread]) -> None:
    live = new_live(memory_source="process", memory_limit_bytes=1 << 30).start()
    live.service.memory_thresholds["refuse"] = 0.88
    assert live.metric("sn17_memory_limit_bytes") == 1 << 30
    assert live.metric("sn17_memory_mark_ratio", mark="refuse") == 0.88
    anon = live.metric("sn17_memory_component_bytes", component="anon")
    assert anon is not None
    assert anon > 1_000_000


def test_a_silent_part_fails_the_probe(live: ServiceThread, clock: Any) -> None:
    live.service.health.watch("thread", 5)
    clock.now += 6
    answer = live.ops("GET", "/health")
    assert answer.status_code == 503
    assert "thread" in answer.json()["problems"]


def test_more_routes_can_be_added_with_and_without_token(new_live: Callable[..., ServiceThread]) -> None:
    live = new_live()
    for admin in (True, False):
        router = APIRouter()
        router.add_api_route("/v1/secret" if admin else "/v1/open", lambda: {"ok": True})
        live.service.add_ops_router(router, admin=admin)
    live.start()
    assert live.ops("GET", "/v1/open", token=None).json() == {"ok": True}
    assert live.ops("GET", "/v1/secret", token=None).status_code == 401
    assert live.ops("GET", "/v1/secret").json() == {"ok": True}
