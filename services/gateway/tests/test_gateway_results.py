"""Leases, results, lifetimes and forms over real HTTP, also where this gateway is better than 404's."""

from __future__ import annotations

import io
import threading
import time
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

from gateway_cases import ALL_MODELS, codes
from gateway_client import FleetWorker, splat_bytes
from gateway_live import Make, retry_after
from gateway_pictures import png


def test_a_task_of_a_dead_worker_is_offered_again(make: Make) -> None:
    gateway = make(lease_seconds=60)
    client, first, second = gateway.client(), gateway.worker("a"), gateway.worker("b")
    task = client.task()
    (lost,) = first.pull()
    assert second.pull() == []
    gateway.clock.ahead += 61
    (again,) = second.pull()
    assert again["id"] == task
    assert again["assignment_token"] != lost["assignment_token"]
    assert first.deliver(again, splat_bytes(1)).status_code == 401, "that token is the other worker's"
    assert first.deliver(lost, splat_bytes(2)).status_code == 200, "late, but the first"
    assert second.deliver(again, splat_bytes(3)).status_code == 410
    assert client.result(task).content == splat_bytes(2)
    assert gateway.live.metric("sn17_gateway_returned_total") == 1


def test_every_answer_with_a_result_has_the_same_bytes(make: Make) -> None:
    gateway = make(slots=2)
    client, a, b = gateway.client(), gateway.worker(uri="//A"), gateway.worker(uri="//B")
    task = client.task()
    (of_a,), (of_b,) = a.pull(), b.pull()
    assert client.status(task) == {"status": "NoResult"}
    assert b.deliver(of_b, splat_bytes(2)).status_code == 200
    assert client.status(task) == {"status": "PartialResult(1)"}
    early = client.result(task)
    assert early.content == splat_bytes(2)
    assert a.deliver(of_a, splat_bytes(1)).status_code == 200
    assert client.status(task)["status"] == "Success"
    for query in ({}, {"compress": "0"}, {"all": "true"}, {"all": "true", "compress": "no"}):
        once, twice = client.result(task, **query), client.result(task, **query)
        assert once.content == twice.content
    packed = client.result(task, all="true")
    assert packed.headers["content-disposition"] == 'attachment; filename="results.zip"'
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.namelist() == ["1.spz", "2.spz"]
        assert archive.read("1.spz") == early.content
        assert archive.read("2.spz") == splat_bytes(1)
    with zipfile.ZipFile(io.BytesIO(client.result(task, all="true", compress="0").content)) as archive:
        assert archive.namelist() == ["1.ply", "2.ply"]
        assert archive.read("2.ply").startswith(b"ply\n")
    assert codes(client.result(task, all=word) for word in ("1", "True")) == [400, 400]


def test_in_progress_is_told_where_clients_know_it(make: Make) -> None:
    gateway = make(hide_in_progress=False)
    task = gateway.client().task()
    gateway.worker().pull()
    assert gateway.client().status(task) == {"status": "InProgress"}


def test_a_life_ends(make: Make) -> None:
    gateway = make()
    client, worker = gateway.client(), gateway.worker()
    waiting, held = client.task(), client.task("a blue robot")
    (offer,) = worker.pull(requested_task_count=1)
    gateway.clock.ahead += 600
    assert worker.pull() == []
    assert worker.deliver(offer, splat_bytes()).status_code == 410
    for task in (waiting, held):
        assert client.status(task) == {"status": "Failure", "reason": "Task timed out"}
        assert client.result(task).text.endswith("Task timed out")
    gateway.sweep()
    assert gateway.live.metric("sn17_gateway_results_total", outcome="timeout") == 2


def test_results_go_after_their_time_and_states_after_theirs(make: Make) -> None:
    gateway = make()
    client, worker = gateway.client(), gateway.worker()
    image = ("image", ("i.png", png(8, 8), "image/png"))
    task = client.add_form([image]).json()["id"]
    (offer,) = worker.pull()
    worker.deliver(offer, splat_bytes())
    assert len(list(gateway.files.iterdir())) == 2
    gateway.clock.ahead += 301
    assert client.result(task).status_code == 404
    assert client.status(task)["status"] == "Success"
    gateway.sweep()
    assert list(gateway.files.iterdir()) == []
    gateway.clock.ahead += 86_400
    gateway.sweep()
    assert client.status(task) == {"status": "NoResult"}


def test_an_asset_is_checked_before_it_counts(make: Make) -> None:
    gateway = make(models=ALL_MODELS)
    client, worker = gateway.client(), gateway.worker()
    image = ("image", ("i.png", png(8, 8), "image/png"))
    tasks = [client.task(), client.add_form([image, ("model", "404-mesh")]).json()["id"]]
    offers = worker.pull(model=["404-3dgs", "404-mesh"])
    assert [offer["id"] for offer in offers] == tasks
    assert codes(worker.deliver(offer, b"garbage") for offer in offers) == [200, 200]
    for task in tasks:
        status = client.status(task)
        assert status["status"] == "Failure"
        assert status["reason"].startswith("result refused: ")
        assert client.result(task).status_code == 404
    assert gateway.live.metric("sn17_gateway_results_total", outcome="refused") == 2
    assert [path for path in gateway.files.iterdir() if path.suffix != ".image"] == []


def test_without_the_check_garbage_is_served_but_not_converted(make: Make) -> None:
    gateway = make(check_assets=False)
    client, worker = gateway.client(), gateway.worker()
    task = client.task()
    (offer,) = worker.pull()
    worker.deliver(offer, b"garbage")
    assert client.result(task).content == b"garbage"
    assert client.result(task, compress="0").status_code == 500
    assert client.result(task, compress="0", all="true").status_code == 500, "no empty 200"


def test_a_missing_file_is_no_result(make: Make) -> None:
    gateway = make()
    client, worker = gateway.client(), gateway.worker()
    task = client.task()
    (offer,) = worker.pull()
    worker.deliver(offer, splat_bytes())
    for path in gateway.files.iterdir():
        path.unlink()
    assert client.result(task).status_code == 404


def test_one_submission_of_a_worker_at_a_time_and_few_in_all(make: Make) -> None:
    gateway = make(max_uploads=1)
    client, worker = gateway.client(), gateway.worker()
    client.task()
    client.task("a blue robot")
    first, second = worker.pull()
    whole = worker.http.build_request("POST", "/add_result", files=result_files(worker, first))
    body = whole.read()
    head = f"POST /add_result HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    with gateway.live.raw() as slow:
        slow.sendall(f"{head}content-type: {whole.headers['content-type']}\r\n\r\n".encode() + body[:-80])
        wait_until(lambda: any(gateway.files.iterdir()))
        for offer, why in ((first, "this result is being taken in"), (second, "too many results")):
            answer = worker.deliver(offer, splat_bytes())
            assert (answer.status_code, retry_after(answer)) == (503, 1)
            assert why in answer.text
        slow.sendall(body[-80:])
        assert b" 200 OK" in slow.recv(4096)
    assert worker.deliver(second, splat_bytes()).status_code == 200


def test_an_upload_that_breaks_off_leaves_nothing_and_can_be_repeated(make: Make) -> None:
    gateway = make()
    worker = gateway.worker()
    gateway.client().task()
    (offer,) = worker.pull()
    whole = worker.http.build_request("POST", "/add_result", files=result_files(worker, offer))
    body = whole.read()
    head = f"POST /add_result HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    with gateway.live.raw() as broken:
        broken.sendall(f"{head}content-type: {whole.headers['content-type']}\r\n\r\n".encode() + body[:-80])
        wait_until(lambda: any(gateway.files.iterdir()))
    wait_until(lambda: not any(gateway.files.iterdir()))
    assert worker.deliver(offer, splat_bytes()).status_code == 200


def result_files(worker: FleetWorker, offer: dict[str, Any]) -> list[tuple[str, Any]]:
    head = [(name, (None, value)) for name, value in worker.head(offer["id"])]
    return [*head, ("asset", ("result.spz", splat_bytes()))]


def wait_until(condition: Callable[[], bool], deadline: float = 30.0) -> None:
    end, pause = time.monotonic() + deadline, threading.Event()
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.01)


def test_forms_of_results(make: Make) -> None:
    gateway = make(max_asset_bytes=10_000)
    client, worker = gateway.client(), gateway.worker()
    client.task()
    (offer,) = worker.pull()
    head, asset = worker.head(offer["id"]), ("asset", splat_bytes())
    token = ("assignment_token", offer["assignment_token"])
    failure = worker.head(offer["id"], "failure")
    refused: list[list[tuple[str, Any]]] = [
        head,
        [*head, ("reason", "r")],
        failure,
        [*failure, asset],
        [*failure, ("reason", "r" * 256)],
        [*head, ("foo", "1"), asset],
        [*head, head[1], asset],
        [*head, asset, asset],
        [*worker.head(offer["id"], "maybe"), asset],
        [*worker.head("not a uuid"), asset],
        [*head, ("assignment_token", "not a uuid"), asset],
        [*worker.head(offer["id"], worker_hotkey="5abc"), asset],
        [*worker.head(offer["id"], timestamp="404_GATEWAY_1.5"), asset],
        [*worker.head(offer["id"], worker_id="w\0"), asset],
        [*head, ("asset", b"x" * 10_001)],
    ]
    for parts in refused:
        answer = worker.send(parts)
        assert answer.status_code == 400, parts
        assert answer.text.startswith("Bad request: ")
    foreign = ("assignment_token", str(uuid.uuid4()))
    assert worker.send([*head, foreign, asset]).status_code == 401
    assert worker.send([*head, asset, foreign]).status_code == 401
    assert worker.send([*worker.head(offer["id"], signature="AAAA"), asset]).status_code == 401
    nowhere = worker.http.post("/add_result", json={})
    assert nowhere.status_code == 400
    quoted = {"content-type": 'multipart/form-data; boundary="abc"'}
    cut = {"content-type": "multipart/form-data; boundary=abc"}
    for headers in (quoted, cut):
        answer = worker.http.post("/add_result", content=b"--abc\r\n", headers=headers)
        assert (answer.status_code, "incomplete multipart stream" in answer.text) == (400, True)
    assert list(gateway.files.iterdir()) == [], "nothing of all this is left"
    assert worker.send([*head, token, asset]).text == "Ok"


def test_forms_of_tasks(make: Make) -> None:
    client = make().client()
    prompt = ("prompt", "a red robot")
    assert client.add_form([("prompt", "too long" * 99), prompt]).status_code == 400
    extras: list[tuple[str, Any]] = [
        *(("seed", text) for text in ("1.0", "", "x" * 12, "99999999999")),
        *(
            ("model_params", text)
            for text in ("[]", "null", '{"a":', '{"a":"' + "x" * 1024 + '"}', '{"a":NaN}')
        ),
        ("model", "x" * 65),
        ("prompt", b"\xff\xff\xff"),
    ]
    for extra in extras:
        assert client.add_form([prompt, extra]).status_code == 400, extra
    assert client.add_form([("prompt", "ab"), prompt, ("model_params", '{"a":[1]}')]).status_code == 200
    for body in (b"", b"[]", b"{", b'{"prompt":1}', b'{"prompt":"a red robot","model_params":null}',
                 b'{"prompt":"a red robot","model_params":{"a":1e999}}', b'{"prompt":"\\ud800 robot"}',
                 b'{"prompt":null}', b'{"prompt":""}', b'{"image":"abc"}'):  # fmt: skip
        answer = client.http.post("/add_task", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, body
    assert client.http.post("/add_task", content=b"x").status_code == 400
    assert client.http.post("/add_task", data={"prompt": "a red robot"}).status_code == 400
    assert client.add("x" * 385).status_code == 400, "in both forms, unlike the original"
    assert client.add("abc", unknown=1, image="ignored").status_code == 200
    too_large = client.http.post("/add_task", json={"prompt": "a red robot", "x": "x" * 2 * 1024**2})
    assert (too_large.status_code, "payload too large" in too_large.text) == (400, True)


def test_params_reach_the_worker_unchanged(make: Make) -> None:
    gateway = make()
    params = {"texture_size": 2048, "text": "\u00e9\0", "list": [None, True, 0.5, -3]}
    gateway.client().task(model_params=params)
    gateway.client().task("no params")
    with_params, without = gateway.worker().pull()
    assert with_params["model_params"] == params
    assert set(without) == {"id", "prompt", "model", "seed", "assignment_token"}


def test_a_refused_upload_leaves_the_connection_usable(make: Make) -> None:
    """The answer comes before the asset is read, and the next request goes through the same connection."""
    gateway = make()
    worker = gateway.worker()
    worker.http.get("/id")
    refused = worker.deliver(
        {"id": str(uuid.uuid4()), "assignment_token": str(uuid.uuid4())}, bytes(8 * 1024**2)
    )
    assert refused.status_code == 410
    assert worker.http.get("/id").text == "1"
