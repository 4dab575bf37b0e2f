"""Limits, keys, paths and nodes over real HTTP."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest
from bittensor_wallet import Keypair
from gateway_cases import codes
from gateway_client import Client, splat_bytes
from gateway_live import Make, retry_after
from gateway_pictures import png
from gateway_process import GUEST
from sn17_gateway.http.address import ClientAddress


def test_a_minute_has_its_limit_and_says_when_to_come_again(make: Make) -> None:
    gateway = make(rate_add_task=2)
    client = gateway.client()
    answers = [client.add() for _ in range(3)]
    assert codes(answers) == [200, 200, 429]
    assert 1 <= retry_after(answers[2]) <= 60
    assert answers[2].headers["content-type"].startswith("text/html")
    as_json = client.http.post("/add_task", json={}, headers={"accept": "application/json"})
    assert as_json.json()["error"]["code"] == 429
    gateway.clock.ahead += 60
    assert client.add().status_code == 200


def test_results_load_and_leader_share_a_limit(make: Make) -> None:
    gateway = make(rate_results=3, rate_get_status=2, rate_get_result=2, rate_get_tasks=2)
    client, worker = gateway.client(), gateway.worker()
    paths = ("/get_load", "/get_leader", "/get_load", "/get_leader")
    assert codes(client.http.get(path) for path in paths) == [200, 200, 200, 429]
    assert worker.fail({"id": str(uuid.uuid4())}, "r").status_code == 429
    task = str(uuid.uuid4())
    assert codes(client.http.get("/get_status", params={"id": task}) for _ in range(3)) == [200, 200, 429]
    assert codes(client.result(task) for _ in range(3)) == [404, 404, 429]
    assert codes(worker.pull_answer() for _ in range(3)) == [200, 200, 429]


def test_guests_have_few_open_tasks_and_few_a_day(make: Make) -> None:
    gateway = make(guest_concurrent=2, guest_daily_by_address=3)
    client, worker = gateway.client(), gateway.worker()
    answers = [client.add() for _ in range(3)]
    assert codes(answers) == [200, 200, 429]
    assert answers[2].json()["error"] == "concurrent_limit"
    assert retry_after(answers[2]) >= 1
    for offer in worker.pull():
        assert worker.fail(offer, "no").status_code == 200
    assert client.add().status_code == 200
    daily = client.add()
    assert (daily.status_code, daily.json()["error"]) == (429, "daily_limit")
    gateway.clock.ahead += 86_400
    assert client.add().status_code == 200


def test_a_repeated_request_is_one_task(make: Make) -> None:
    gateway = make(queue_limit=2, guest_concurrent=2)
    guest, mine = gateway.client(), gateway.client(gateway.new_key())

    def add(client: Client, key: str, **fields: Any) -> httpx2.Response:
        body = {"prompt": "a red robot", "seed": -1, **fields}
        return client.http.post("/add_task", json=body, headers={"Idempotency-Key": key})

    first = add(guest, "one").json()["id"]
    assert add(mine, "one").json()["id"] != first
    form = [("seed", "4294967295"), ("prompt", "a red robot"), ("model", "404-3dgs")]
    again = [add(guest, "one"), guest.add_form(form, **{"Idempotency-Key": "one"})]
    assert [answer.json() for answer in again] == [{"id": first}] * 2
    assert add(guest, "two").status_code == 503
    for changes in ({"seed": 4}, {"prompt": "a red robo"}, {"model_params": {}}):
        other = add(guest, "one", **changes)
        assert (other.status_code, other.json()["error"]) == (409, "idempotency_conflict")
    picture = ("x.png", png(2, 2), "image/png")
    assert guest.add_form([("image", picture)], **{"Idempotency-Key": "one"}).status_code == 409
    for key in ("", "a b", "x" * 201):
        assert add(guest, key).status_code == 400
    assert len(gateway.worker().pull()) == 2


def test_a_full_queue_hides_a_wrong_model_and_opens_when_a_worker_pulls(make: Make) -> None:
    gateway = make(queue_limit=1)
    client = gateway.client()
    client.task()
    full = client.add(model="nonsense")
    assert full.status_code == 503
    assert full.text.startswith("Service unavailable: ")
    assert retry_after(full) >= 1
    assert client.add("x").status_code == 400, "a bad prompt is seen before"
    assert len(gateway.worker().pull()) == 1
    assert client.add(model="nonsense").status_code == 400
    assert client.add().status_code == 200


def test_calls_without_a_valid_key_have_a_day(make: Make) -> None:
    gateway = make(unauthorized_daily=2)
    clients = [gateway.client(key) for key in (None, str(uuid.uuid4()), None)]
    answers = [client.add() for client in clients]
    assert codes(answers) == [401, 401, 429]
    assert answers[2].json()["error"] == "unauthorized_daily_limit"
    assert gateway.client().add().status_code == 200


def test_guessing_keys_is_blocked_and_known_keys_still_pass(make: Make) -> None:
    gateway = make(unknown_key_limit=3, unauthorized_daily=0)
    key = gateway.new_key()
    guesses = [gateway.client(str(uuid.uuid4())).result(str(uuid.uuid4())) for _ in range(4)]
    assert codes(guesses) == [401, 401, 401, 429]
    assert guesses[3].json()["error"] == "invalid_api_key_rate_limit"
    assert 1 <= retry_after(guesses[3]) <= 300
    assert gateway.client(key).add().status_code == 200
    gateway.clock.ahead += 301
    assert gateway.client(str(uuid.uuid4())).add().status_code == 401


def test_keys_are_made_listed_and_revoked_by_the_admin(make: Make) -> None:
    gateway = make()
    assert gateway.live.ops("GET", "/admin/v1/keys", token=None).status_code == 401
    key = gateway.new_key(name="tom", kind="personal", concurrent=1)
    (listed,) = gateway.live.ops("GET", "/admin/v1/keys").json()
    assert (listed["name"], listed["kind"], listed["concurrent"]) == ("tom", "personal", 1)
    assert key not in gateway.live.ops("GET", "/admin/v1/keys").text
    assert codes(gateway.client(key).add() for _ in range(2)) == [200, 429]
    assert gateway.client(key.upper()).add().status_code == 401
    assert gateway.live.ops("DELETE", f"/admin/v1/keys/{listed['id']}").json()["revoked_at"] is not None
    assert gateway.client(key).add().status_code == 401
    assert gateway.live.ops("DELETE", "/admin/v1/keys/nobody").status_code == 404
    for bad in ({"kind": "generic"}, {"tags": ["A B"]}, {"name": ""}, {"concurrent": -1}):
        answer = gateway.live.ops("POST", "/admin/v1/keys", json={"name": "x", **bad})
        assert answer.status_code == 422, bad


def test_the_guests_key_is_a_uuid_in_any_case(make: Make) -> None:
    assert make().client(GUEST.upper()).add().status_code == 200


def test_the_guests_key_may_stand_in_a_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "guests").write_text(f"{GUEST}\n")
    gateway = make(generic_key=None, generic_key_file=tmp_path / "guests")
    assert gateway.client(GUEST).add().status_code == 200


def test_without_a_generic_key_there_are_no_guests(make: Make) -> None:
    assert make(generic_key=None).client().add().status_code == 401


def test_others_do_not_see_a_result(make: Make) -> None:
    gateway = make()
    mine, worker = gateway.client(gateway.new_key()), gateway.worker()
    task = mine.task()
    (offer,) = worker.pull()
    worker.deliver(offer, splat_bytes())
    assert mine.result(task).status_code == 200
    unknown = mine.result(str(uuid.uuid4()))
    for other in (gateway.client(), gateway.client(gateway.new_key())):
        answer = other.result(task)
        assert (answer.status_code, answer.text) == (404, unknown.text)
        assert other.status(task)["status"] == "Success", "ids are the only secret"


def test_a_status_can_ask_for_its_owner(make: Make) -> None:
    gateway = make(status_needs_owner=True)
    mine = gateway.client(gateway.new_key())
    task = mine.task()
    gateway.worker().pull()
    gateway.clock.ahead += 600
    assert mine.status(task)["status"] == "Failure"
    assert gateway.client().status(task) == {"status": "NoResult"}
    assert gateway.client(None).http.get("/get_status", params={"id": task}).status_code == 401


def test_a_company_ties_its_tasks_to_workers_by_tags(make: Make) -> None:
    gateway = make()
    task = gateway.client(gateway.new_key(tags=["Studio"])).task()
    worker = gateway.worker()
    assert worker.pull() == []
    assert worker.pull(worker_tags=["other"]) == []
    bad = worker.pull_answer(worker_tags=["a b"])
    assert (bad.status_code, bad.json()["field"]) == (400, "worker_tags")
    assert [offer["id"] for offer in worker.pull(worker_tags=[" STUDIO "])] == [task]
    gateway.client().task()
    assert gateway.worker(uri="//Other").pull(worker_tags=["studio"]) == []


def test_paths_and_methods(make: Make) -> None:
    http = make().client().http
    base = str(http.base_url).rstrip("/")
    assert [http.get(f"{base}{path}").text for path in ("/id", "//id", "/id/", "//id/")] == ["1"] * 4
    assert codes([http.head("/id"), http.options("/id"), http.get("/add_task")]) == [405] * 3
    index = http.get("/")
    assert (index.status_code, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert codes([http.head("/"), http.options("/"), http.post("/"), http.delete("/")]) == [405] * 4
    page = http.get("/nowhere", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert http.get("/nowhere", headers={"accept": "application/json"}).json()["error"]["code"] == 404
    bad = http.get("/get_status", params={"id": "x"})
    assert (bad.status_code, "deserialize error" in bad.text) == (400, True)
    assert http.get("/get_status").status_code == 400
    assert http.get("/health").json() == {"status": "healthy"}


def test_nodes(make: Make) -> None:
    gateway = make(node_domain="gateway.example", node_port=443, node_id=7)
    gateway.client().task()
    (node,) = gateway.worker().pull_answer(requested_task_count=0).json()["gateways"]
    assert (node["node_id"], node["domain"], node["http_port"]) == (7, "gateway.example", 443)
    leader = gateway.client().http.get("/get_leader").json()
    assert leader == {"leader_id": 7, "domain": "gateway.example", "ip": "127.0.0.1", "http_port": 443}
    (listed,) = gateway.client().http.get("/get_load").json()["gateways"]
    assert set(listed) == {
        "node_id", "domain", "ip", "name", "http_port", "available_tasks", "last_task_acquisition",
        "last_update",
    }  # fmt: skip


def test_only_listed_hotkeys_work(make: Make) -> None:
    known = Keypair.create_from_uri("//Listed").ss58_address
    gateway = make(worker_hotkeys=(known,))
    assert gateway.worker(uri="//Listed").pull_answer().status_code == 200
    assert gateway.worker(uri="//Other").pull_answer().status_code == 401


def test_a_draining_gateway_takes_no_tasks_but_results(make: Make) -> None:
    gateway = make()
    client, worker = gateway.client(), gateway.worker()
    task = client.task()
    client.task("a blue robot")
    (offer,) = worker.pull(requested_task_count=1)
    assert (
        gateway.live.ops("POST", "/admin/v1/drain", json={"by": "user", "reason": "test"}).status_code == 200
    )
    refused = client.add()
    assert (refused.status_code, retry_after(refused)) == (503, 5)
    assert worker.pull() == []
    assert worker.deliver(offer, splat_bytes()).status_code == 200
    assert client.result(task).status_code == 200


def test_a_storage_that_does_not_answer_is_told(make: Make) -> None:
    gateway = make()
    client, worker = gateway.client(), gateway.worker()
    gateway.break_storage()
    answers = [
        client.add(),
        client.http.get("/get_status", params={"id": str(uuid.uuid4())}),
        worker.pull_answer(),
    ]
    assert codes(answers) == [503] * 3
    assert gateway.live.metric("sn17_refusals_total", code="overloaded") == 3
    assert all(retry_after(answer) >= 1 for answer in answers)
    assert gateway.live.ops("GET", "/admin/v1/keys").json()["code"] == "overloaded"
    gateway.clock.ahead += 31
    ready = gateway.live.ops("GET", "/ready")
    assert (ready.status_code, "storage" in ready.json()["reasons"]) == (503, True)


def test_metrics_tell_queue_waits_and_outcomes(make: Make) -> None:
    gateway = make()
    client, worker = gateway.client(), gateway.worker()
    client.http.headers["x-client-origin"] = "Unity"
    client.task()
    client.add_form([("image", ("i.png", png(8, 8), "image/png"))])
    first, second = worker.pull()
    worker.deliver(first, splat_bytes())
    worker.fail(second, "no")
    metric = gateway.live.metric
    assert metric("sn17_gateway_tasks_total", origin="unity", kind="text") == 1
    assert metric("sn17_gateway_tasks_total", origin="unity", kind="image") == 1
    assert metric("sn17_gateway_deliveries_total") == 2
    assert metric("sn17_gateway_results_total", outcome="success") == 1
    assert metric("sn17_gateway_results_total", outcome="failure") == 1
    assert metric("sn17_gateway_wait_seconds_count") == 2
    assert metric("sn17_gateway_generation_seconds_count") == 1
    assert metric("sn17_gateway_open_tasks", state="waiting") is not None
    assert metric("sn17_gateway_oldest_wait_seconds") is not None
    worker.pull_answer(model=[])
    assert metric("sn17_refusals_total", code="bad_request") == 1


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.7", "203.0.113.5", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.5, 10.9.9.9", "203.0.113.5"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "203.0.113.5, unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("2001:db8::1", "2001:DB8:ffff::5", "2001:db8:ffff::5"),
        ("", "203.0.113.5", ""),
    ],
)
def test_the_address_is_the_last_one_that_no_trusted_proxy_has(
    peer: str, forwarded: str, address: str
) -> None:
    assert ClientAddress(["10.0.0.0/8", "2001:db8::/64"]).of(peer, forwarded) == address


def test_limits_follow_the_address_behind_a_trusted_proxy(make: Make) -> None:
    gateway = make(rate_add_task=1, trusted_proxies=("127.0.0.0/8",))
    client = gateway.client()

    def add(address: str) -> int:
        body, headers = {"prompt": "a red robot"}, {"x-forwarded-for": address}
        return client.http.post("/add_task", json=body, headers=headers).status_code

    assert [add("203.0.113.5"), add("203.0.113.5"), add("203.0.113.6")] == [200, 429, 200]
