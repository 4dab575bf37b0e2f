"""Every recorded case against the gateway as a process, and what the published clients send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway_cases import CASES, Start, Target
from gateway_client import Client, FleetWorker, splat_bytes
from gateway_pictures import png
from gateway_process import GUEST, GatewayProcess


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @contextmanager
    def run(*, slots: int = 1, models: tuple[str, ...] = ("404-3dgs",)) -> Iterator[Target]:
        folder = tmp_path / f"slots-{slots}"
        folder.mkdir()
        with GatewayProcess(folder, slots=slots, models=list(models)) as gateway:
            yield Target(gateway.url, GUEST)

    return run


@pytest.mark.parametrize("name", CASES)
def test_recorded_case(name: str, start: Start) -> None:
    CASES[name](start)


def test_every_case_is_there() -> None:
    assert [name.partition("_")[0] for name in CASES] == [f"g{number}" for number in range(1, 16)]


def test_unity_text_task_from_prompt_to_splat(start: Start) -> None:
    """Its enum of states knows no PartialResult(1), and its result needs an attachment."""
    known = {"NoResult", "InProgress", "Failure", "PartialResult", "Success"}
    with start() as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        headers = {"x-client-origin": "unity", "content-type": "application/json"}
        body = b'{"prompt":"a red robot"}'
        task = client.http.post("/add_task", content=body, headers=headers).json()["id"]
        seen = [client.status(task)["status"]]
        (offer,) = worker.pull()
        seen.append(client.status(task)["status"])
        worker.deliver(offer, splat_bytes())
        seen.append(client.status(task)["status"])
        assert seen == ["NoResult", "NoResult", "Success"]
        assert set(seen) <= known
        result = client.result(task)
        assert result.headers["content-disposition"].split(";")[0] == "attachment"


def test_blender_requests_with_its_doubled_slash(start: Start) -> None:
    """It joins address and route as they are, and knows no InProgress."""
    known = {"NoResult", "Failure", "PartialResult", "Success"}
    with start() as target:
        client, worker = Client(target.url, target.key), FleetWorker(target.url)
        headers = {"x-client-origin": "blender"}
        fields = {"prompt": "a red robot", "model": "404-3dgs", "seed": 0}
        text = client.http.post(f"{target.url}//add_task", json=fields, headers=headers).json()["id"]
        image = client.http.post(
            f"{target.url}//add_task",
            files={"image": ("k3f9.png", png(1024, 512), "image/png")},
            data={"model": "404-3dgs", "seed": "-1"},
            headers=headers,
        ).json()["id"]
        offers = worker.pull()
        assert {offer["id"]: offer["seed"] for offer in offers}[text] == 0
        statuses = [
            client.http.get(f"{target.url}//get_status", params={"id": task}).json()["status"]
            for task in (text, image)
        ]
        assert set(statuses) <= known
        for offer in offers:
            assert worker.deliver(offer, splat_bytes()).status_code == 200
        for task in (text, image):
            result = client.http.get(f"{target.url}//get_result", params={"id": task})
            assert result.headers["content-disposition"].startswith("attachment")
            assert result.content == splat_bytes()
        mesh = client.http.post(f"{target.url}//add_task", json={**fields, "model": "404-mesh"})
        assert mesh.status_code == 400
