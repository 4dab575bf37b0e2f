"""Where 404's gateway differs from ours: what it forgets, drops, and lets through."""

from __future__ import annotations

import io
import socket
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest
from gateway_cases import GLB
from gateway_client import splat_bytes
from gateway_fake import LiveFake
from gateway_pictures import png
from sn17_devnet.gateway.faults import GatewayFault
from sn17_devnet.gateway.settings import KnownKey

Make = Callable[..., LiveFake]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(LiveFake(**settings))


def test_states_of_one_slot(make: Make) -> None:
    fake = make(slots=1)
    client, worker = fake.client(), fake.worker()
    task = client.task()
    seen = [client.status(task)["status"]]
    (offer,) = worker.pull()
    seen.append(client.status(task)["status"])
    worker.deliver(offer, splat_bytes())
    seen.append(client.status(task)["status"])
    assert seen == ["NoResult", "InProgress", "Success"]


def test_a_first_success_is_served_while_slots_are_left(make: Make) -> None:
    fake = make(slots=2)
    client, workers = fake.client(), [fake.worker("a", "//A"), fake.worker("b", "//B")]
    task = client.task()
    offers = [worker.pull()[0] for worker in workers]
    workers[1].fail(offers[1], "no memory")
    assert client.status(task) == {"status": "PartialResult(0)"}
    assert client.result(task).status_code == 404
    workers[0].deliver(offers[0], splat_bytes(1))
    assert client.status(task) == {"status": "Success", "worker_id": "a"}
    assert client.result(task).content == splat_bytes(1)


def test_more_slots_than_hotkeys_lose_the_result_and_fail_the_task(make: Make) -> None:
    """Trap T1."""
    fake = make(slots=3)
    client, worker = fake.client(), fake.worker()
    task = client.task()
    (offer,) = worker.pull()
    worker.deliver(offer, splat_bytes())
    assert client.status(task) == {"status": "PartialResult(1)"}
    assert client.result(task).status_code == 200
    fake.later(301)
    assert client.status(task) == {"status": "NoResult"}
    assert client.result(task).status_code == 404
    fake.later(300)
    assert client.status(task) == {"status": "Failure", "reason": "Task timed out"}
    assert worker.deliver(offer, splat_bytes()).status_code == 410


def test_a_restart_loses_tasks_and_results_but_not_states(make: Make) -> None:
    fake = make(slots=1)
    client, worker = fake.client(), fake.worker()
    done, held, waiting = client.task(), client.task(), client.task()
    first, second = worker.pull(requested_task_count=2)
    assert {first["id"], second["id"]} == {done, held}
    worker.deliver(first, splat_bytes())
    fake.restart()
    assert client.status(done)["status"] == "Success"
    assert client.status(held)["status"] == "InProgress"
    assert client.status(waiting)["status"] == "NoResult"
    assert client.result(done).status_code == 404
    assert worker.deliver(second, splat_bytes()).json()["error"] == "task_context_unavailable"
    assert worker.pull() == []
    fake.later(601)
    assert client.status(held) == {"status": "Failure", "reason": "Gateway task deadline exceeded."}


def test_tasks_are_on_the_node_that_took_them(make: Make) -> None:
    fake = make(nodes=2, slots=1)
    tasks = [fake.client(node=node).task() for node in (0, 1)]
    for node in (0, 1):
        worker = fake.worker(node=node)
        answer = worker.pull_answer().json()
        assert [offer["id"] for offer in answer["tasks"]] == [tasks[node]]
        assert [f"http://{g['ip']}:{g['http_port']}" for g in answer["gateways"]] == [
            fake.url(0),
            fake.url(1),
        ]
        other = fake.worker(node=1 - node)
        assert other.deliver(answer["tasks"][0], splat_bytes()).status_code == 410
        assert worker.deliver(answer["tasks"][0], splat_bytes(node)).status_code == 200
        assert fake.client(node=1 - node).result(tasks[node]).status_code == 404
        assert fake.client(node=1 - node).status(tasks[node])["status"] == "Success"
    assert fake.client(node=1).http.get("/id").text == "2"
    assert fake.client(node=1).http.get("/get_leader").json()["leader_id"] == 1


def test_garbage_is_stored_and_served(make: Make) -> None:
    """Trap T15."""
    fake = make(slots=1)
    client, worker = fake.client(), fake.worker()
    task = client.task()
    (offer,) = worker.pull()
    assert worker.deliver(offer, b"garbage").status_code == 200
    assert client.result(task).content == b"garbage"
    assert client.result(task, compress="0").status_code == 500
    broken = client.result(task, compress="0", all="true")
    assert (broken.status_code, broken.content) == (200, b"")
    whole = client.result(task, all="true")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"1.spz": b"garbage"}


def test_a_mesh_counts_as_a_splat_after_the_life_of_its_task(make: Make) -> None:
    """Trap T12."""
    fake = make(slots=1)
    client, worker = fake.client(), fake.worker()
    answer = client.add_form([("model", "404-mesh"), ("image", ("i.png", png(8, 8), "image/png"))])
    task = answer.json()["id"]
    fake.later(500)
    (offer,) = worker.pull(model="404-mesh")
    worker.deliver(offer, GLB)
    assert client.result(task).headers["content-disposition"].endswith('"result.glb"')
    fake.later(150)
    assert client.result(task).headers["content-disposition"].endswith('"result.spz"')


def test_limits_of_keys(make: Make) -> None:
    mine, company = str(uuid.UUID(int=7, version=4)), str(uuid.UUID(int=8, version=4))
    fake = make(
        slots=1, guest_concurrent=2, guest_daily_by_address=3,
        keys=(KnownKey(key=mine), KnownKey(key=company, kind="company", concurrent=0, tags=("gpu",))),
    )  # fmt: skip
    guest, worker = fake.client(), fake.worker()
    assert [guest.add().status_code for _ in range(3)] == [200, 200, 429]
    assert guest.add().json()["error"] == "concurrent_limit"
    for offer in worker.pull():
        worker.deliver(offer, splat_bytes())
    guest.task()
    for offer in worker.pull():
        worker.fail(offer, "no")
    over = guest.add()
    assert over.json()["error"] == "daily_limit"
    assert "retry-after" not in over.headers
    owner = fake.client(mine)
    task = owner.task()
    assert owner.add().json()["error"] == "concurrent_limit"
    (offer,) = worker.pull()
    worker.deliver(offer, splat_bytes())
    assert owner.result(task).status_code == 200
    assert guest.result(task).status_code == 404
    assert fake.client(mine.upper().replace("0", "A")).add().status_code == 401
    tagged = fake.client(company).task()
    assert worker.pull() == []
    assert [o["id"] for o in worker.pull(worker_tags=["GPU "])] == [tagged]


def test_limits_of_addresses(make: Make) -> None:
    fake = make(rate_add_task=2, rate_results=2, unauthorized_daily=1)
    client = fake.client()
    assert fake.client(None).add().status_code == 401
    assert fake.client(None).add().json()["error"] == "unauthorized_daily_limit"
    page = client.add()
    assert page.status_code == 429
    assert page.headers["content-type"].startswith("text/html")
    assert "retry-after" not in page.headers
    fake.later(60)
    fake.client(None).http.get("/get_load")
    fake.client(None).http.get("/get_leader")
    limited = fake.client(None).http.get("/get_load", headers={"accept": "application/json"})
    assert limited.json()["error"]["code"] == 429


def test_guessed_keys_block_the_address_but_not_known_keys(make: Make) -> None:
    fake = make()
    unknown = fake.client(str(uuid.UUID(int=9, version=4)))
    answers = [unknown.result(str(uuid.UUID(int=1))) for _ in range(51)]
    assert [answer.status_code for answer in answers] == [401] * 50 + [429]
    assert answers[-1].json()["error"] == "invalid_api_key_rate_limit"
    assert fake.client().add().status_code == 200


def test_routes_and_spellings(make: Make) -> None:
    fake = make()
    http = fake.client().http
    assert http.get(f"{fake.url()}//id").text == "1"
    assert http.get("/id/").text == "1"
    for method, path in (("HEAD", "/id"), ("OPTIONS", "/add_task"), ("GET", "/"), ("GET", "/add_task")):
        assert http.request(method, path).status_code == 405
    assert http.get("/nothing").status_code == 404
    fake.client().task("a" * 5000)
    assert "queue_len 1\n" in http.get("/metrics").text


def test_an_early_error_on_a_large_upload_closes_the_connection_unannounced(make: Make) -> None:
    """Trap T7."""
    fake = make(slots=1)
    worker = fake.worker()
    parts = [*worker.head(str(uuid.uuid4())), ("asset", bytes(3_000_000))]
    request = worker.http.build_request(
        "POST", "/add_result", files=[(n, ("r", v) if isinstance(v, bytes) else (None, v)) for n, v in parts]
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    body = request.read()
    port = fake.gateway.nodes[0].server.port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"POST /add_result HTTP/1.1\r\n{head}\r\n".encode() + body[:10_000])
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    assert received.startswith(b"HTTP/1.1 410")
    assert b"connection: close" not in received.lower()


def test_faults_and_restarts_to_order(make: Make) -> None:
    fake = make(nodes=2, slots=1)
    first, second = fake.client(), fake.client(node=1)
    fake.gateway.set_faults(
        [
            GatewayFault(kind="status", status=500, route="/add_task", node=0, limit=1),
            GatewayFault(kind="reset", route="/add_result", when="after", limit=1),
        ]
    )
    assert first.add().status_code == 500
    assert second.add().status_code == 200
    task, worker = first.task(), fake.worker()
    (offer,) = worker.pull()
    with pytest.raises(httpx2.TransportError):
        worker.deliver(offer, splat_bytes())
    assert first.status(task)["status"] == "Success"
    assert worker.deliver(offer, splat_bytes()).status_code == 410
    with pytest.raises(ValueError, match="only validators"):
        GatewayFault(kind="unvalidated")
