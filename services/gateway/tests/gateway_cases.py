"""The conformance cases of 404's gateway, over HTTP, for whatever implementation ``start`` gives.

``CASES`` maps a name to a function that takes ``start``: called with slots and models it starts a fresh
gateway, whose guests have no limit, and gives its base URL and the guests' key while the context lasts.
"""

from __future__ import annotations

import base64
import random
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from gateway_client import Client, FleetWorker, splat_bytes
from gateway_pictures import gif, jpeg, png, webp

ALL_MODELS = ("404-3dgs", "404-mesh", "404-mesh-v2")
GLB = b"glTF" + (2).to_bytes(4, "little") + (20).to_bytes(4, "little") + bytes(8)
PLY_PROPERTIES = (
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A running gateway."""

    url: str
    key: str


Start = Callable[..., AbstractContextManager[Target]]
CASES: dict[str, Callable[[Start], None]] = {}


def case(function: Callable[[Start], None]) -> Callable[[Start], None]:
    CASES[function.__name__] = function
    return function


def codes(answers: Iterable[Any]) -> list[int]:
    return [answer.status_code for answer in answers]


@case
def g1_a_text_task_waits(start: Start) -> None:
    with start(slots=3) as target:
        client = Client(target.url, target.key)
        answer = client.add("a red robot", seed=12345)
        assert answer.status_code == 200
        assert set(answer.json()) == {"id"}
        task = str(uuid.UUID(answer.json()["id"]))
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert client.status(task) == {"status": "NoResult"}
        result = client.result(task)
        assert result.status_code == 404
        assert result.headers["content-type"].startswith("text/plain")


@case
def g2_keys(start: Start) -> None:
    with start(slots=3) as target:
        keys = (None, "abc", uuid.uuid4().hex, str(uuid.uuid4()))
        clients = [Client(target.url, key) for key in keys]
        assert codes(client.add() for client in clients) == [401, 400, 400, 401]
        task = Client(target.url, target.key).task()
        assert codes(c.http.get("/get_status", params={"id": task}) for c in clients) == [200] * 4


@case
def g3_prompts(start: Start) -> None:
    with start(slots=3) as target:
        client = Client(target.url, target.key)
        prompts = ("ab", 'say "hi"', "a_b_c", "a\nb c", "caf\u00e9 noir", "abc")
        assert codes(client.add(prompt) for prompt in prompts) == [400] * 5 + [200]
        assert client.add_form([("prompt", "a" * 385)]).status_code == 400
        assert client.add_form([("prompt", "a" * 384)]).status_code == 200


@case
def g4_prompt_or_image(start: Start) -> None:
    with start(slots=3) as target:
        client = Client(target.url, target.key)
        image = ("image", ("image.png", png(8, 8), "image/png"))
        forms: list[list[tuple[str, Any]]] = [
            [("prompt", "a red robot"), image],
            [("prompt", ""), image],
            [("seed", "1")],
            [("prompt", "a red robot"), ("foo", "1")],
        ]
        assert codes(client.add_form(form) for form in forms) == [400] * 4


@case
def g5_seeds(start: Start) -> None:
    with start(slots=3) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        ids = [client.task(seed=4294967295), client.task(seed=-1), client.task()]
        ids.append(client.task(seed=2147483648))
        form = client.add_form([("prompt", "a red robot"), ("seed", " 7 ")])
        assert form.status_code == 200
        ids.append(form.json()["id"])
        assert codes(client.add(seed=seed) for seed in ("5", 1.0, True, 4294967296)) == [400] * 4
        seeds = {task["id"]: task["seed"] for task in worker.pull()}
        assert set(seeds) == set(ids)
        drawn = [seeds[task] for task in ids[:3]]
        assert all(-(2**31) <= seed < 2**31 and seed != -1 for seed in drawn)
        assert [seeds[task] for task in ids[3:]] == [-2147483648, 7]


@case
def g6_models(start: Start) -> None:
    with start(slots=3, models=ALL_MODELS) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        for answer in (client.add(model="trellis"), client.add(model="404-mesh")):
            assert answer.status_code == 400
            assert answer.json()["error"] == "invalid_field"
            assert answer.json()["field"] == "model"
        image = ("image", ("image.png", png(8, 8), "image/png"))
        answer = client.add_form([("model", "404-mesh-v2"), image])
        assert answer.status_code == 200
        assert worker.pull() == []
        assert [task["id"] for task in worker.pull(model=["404-mesh-v2"])] == [answer.json()["id"]]


@case
def g7_pictures(start: Start) -> None:
    with start(slots=3) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)

        def send(content: bytes) -> Any:
            return client.add_form([("image", ("picture", content, "application/octet-stream"))])

        sent = {}
        for content in (png(40, 30), jpeg(40, 30), webp(40, 30)):
            answer = send(content)
            assert answer.status_code == 200, answer.text
            sent[answer.json()["id"]] = content
        pulled = {task["id"]: base64.b64decode(task["image"], validate=True) for task in worker.pull()}
        assert pulled == sent
        large = png(8, 8) + bytes(2 * 1024**2 + 1 - len(png(8, 8)))
        assert codes([send(gif()), send(png(1025, 10)), send(large)]) == [400] * 3


def unity_image_request(image: bytes) -> tuple[bytes, str]:
    """Body and content type of Unity's image request: one part, an unquoted WebKit boundary."""
    boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return (
        head.encode() + image + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


@case
def g8_unity_image(start: Start) -> None:
    with start(slots=1) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        body, content_type = unity_image_request(png(64, 48))
        headers = {"content-type": content_type, "x-client-origin": "unity"}
        answer = client.http.post("/add_task", content=body, headers=headers)
        assert answer.status_code == 200
        (task,) = worker.pull()
        assert task["model"] == "404-3dgs"
        assert isinstance(task["seed"], int)
        assert base64.b64decode(task["image"]) == png(64, 48)


@case
def g9_signatures(start: Start) -> None:
    with start(slots=3) as target:
        worker = FleetWorker(target.url)

        def at(seconds: float, prefix: str = "404_GATEWAY_") -> dict[str, str]:
            timestamp = f"{prefix}{int(time.time() + seconds)}"
            signature = base64.b64encode(worker.keypair.sign(timestamp)).decode()
            return {"timestamp": timestamp, "signature": signature}

        first = at(0)
        answers = [worker.pull_answer(**first)]
        answers += [worker.pull_answer(**at(seconds)) for seconds in (3, -28, -33)]
        answers.append(worker.pull_answer(**at(0, prefix="")))
        late = at(-1)
        as_hex = base64.b64decode(late["signature"]).hex()
        answers.append(worker.pull_answer(timestamp=late["timestamp"], signature=as_hex))
        answers += [worker.pull_answer(**first), worker.pull_answer(**first)]
        assert codes(answers) == [200, 401, 200, 401, 400, 401, 200, 200]


@case
def g10_pull_bodies(start: Start) -> None:
    with start(slots=3) as target:
        worker = FleetWorker(target.url)
        assert worker.pull_answer(model=None).status_code == 400
        empty = worker.pull_answer(model=[])
        assert empty.status_code == 400
        assert empty.json()["error"] == "invalid_field"
        alias = {"worker_hotkey": None, "validator_hotkey": worker.hotkey}
        assert worker.pull_answer(**alias).status_code == 200
        assert worker.pull_answer(validator_hotkey=worker.hotkey).status_code == 400
        assert worker.pull_answer(requested_task_count="1").status_code == 400
        short = worker.pull_answer(filler="")
        assert short.status_code == 200
        missing = 4096 - len(short.request.content)
        assert worker.pull_answer(filler="x" * missing).status_code == 200
        assert worker.pull_answer(filler="x" * (missing + 1)).status_code == 400


@case
def g11_order_of_parts(start: Start) -> None:
    with start(slots=3) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        client.task()
        (offer,) = worker.pull()
        asset = ("asset", splat_bytes())
        head = worker.head(offer["id"])
        assert worker.send([asset, *head]).status_code == 400
        status = [part for part in head if part[0] == "status"]
        rest = [part for part in head if part[0] != "status"]
        assert worker.send([*rest, asset, *status]).status_code == 400
        shuffled = worker.head(offer["id"])
        random.Random(11).shuffle(shuffled)
        answer = worker.send([*shuffled, asset, ("assignment_token", offer["assignment_token"])])
        assert (answer.status_code, answer.text) == (200, "Ok")


@case
def g12_one_hotkey(start: Start) -> None:
    with start(slots=3) as target:
        client = Client(target.url, target.key)
        a, b = FleetWorker(target.url, "A"), FleetWorker(target.url, "B")
        client.task()
        (offer,) = a.pull()
        assert b.pull() == []
        assert codes([a.deliver(offer, splat_bytes()), a.deliver(offer, splat_bytes())]) == [200, 401]
        unknown = a.deliver({**offer, "id": str(uuid.uuid4())}, splat_bytes())
        assert unknown.status_code == 410
        assert unknown.json()["error"] == "task_context_unavailable"
    with start(slots=1) as target:
        client, a = Client(target.url, target.key), FleetWorker(target.url, "A")
        client.task()
        (offer,) = a.pull()
        assert codes([a.deliver(offer, splat_bytes()), a.deliver(offer, splat_bytes())]) == [200, 410]


@case
def g13_failures(start: Start) -> None:
    with start(slots=1) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        task = client.task()
        (offer,) = worker.pull()
        reason = "r" * 255
        assert worker.fail(offer, reason).status_code == 200
        assert client.status(task) == {"status": "Failure", "reason": reason}
        result = client.result(task)
        assert result.status_code == 404
        assert reason in result.text
        client.task()
        (offer,) = worker.pull()
        assert worker.fail(offer, reason + "r").status_code == 400


@case
def g14_splats(start: Start) -> None:
    with start(slots=1) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        task, asset = client.task(), splat_bytes(14)
        (offer,) = worker.pull()
        assert worker.deliver(offer, asset).status_code == 200
        assert client.status(task) == {"status": "Success", "worker_id": "w1"}
        plain = client.result(task)
        assert plain.content == asset
        assert plain.headers["content-type"] == "application/octet-stream"
        assert plain.headers["content-disposition"] == 'attachment; filename="result.spz"'
        for query in ({"compress": "0"}, {"compress": "OFF"}, {"format": "ply", "compress": "1"}):
            ply = client.result(task, **query)
            assert ply.status_code == 200
            assert ply.headers["content-disposition"] == 'attachment; filename="result.ply"'
            head, _, body = ply.content.partition(b"end_header\n")
            lines = head.decode().splitlines()
            assert lines[1] == "format binary_little_endian 1.0"
            names = tuple(line.split()[-1] for line in lines if line.startswith("property"))
            assert names == PLY_PROPERTIES
            assert len(body) == 64 * 14 * 4
        assert client.result(task, compress="2").status_code == 400
        part = client.http.get("/get_result", params={"id": task}, headers={"range": "bytes=0-3"})
        assert (part.status_code, part.content) == (200, asset)


@case
def g15_meshes(start: Start) -> None:
    with start(slots=1, models=ALL_MODELS) as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        image = ("image", ("image.png", png(8, 8), "image/png"))
        task = client.add_form([("model", "404-mesh"), image]).json()["id"]
        (offer,) = worker.pull(model="404-mesh")
        assert worker.deliver(offer, GLB).status_code == 200
        result = client.result(task, compress="0")
        assert result.headers["content-type"] == "model/gltf-binary"
        assert result.headers["content-disposition"] == 'attachment; filename="result.glb"'
        assert result.content == GLB
