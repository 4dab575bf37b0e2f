"""The page's own routes: who may read what, and what is said when the miner is away."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, Request
from page_miner import NOW, TOKEN, FakeMiner, splats, task, worker
from sn17_http import own_async_client
from sn17_page import MinerReader, MinerUnavailableError, Page, Queue, page_router
from sn17_page.safety import host_name, open_to_all
from sn17_splats import encode_spz, read_ply

KEY = "9d3b2c1e-0000-4000-8000-000000000001"
LOCAL = {"host": "localhost:8404"}


async def authorize(request: Request) -> None:
    if request.headers.get("x-api-key") != KEY:
        raise HTTPException(401)


def overwrite(path: Path, text: str) -> None:
    path.write_text(text)


def application(miner: MinerReader | None, listens_on: str) -> FastAPI:
    app = FastAPI()
    page = Page(
        "lab",
        listens_on,
        authorize,
        "guest-key",
        lambda: Queue(waiting=3, working=1, oldest_seconds=2),
        lambda: NOW,
        miner,
    )
    app.include_router(page_router(page))
    return app


@pytest.fixture
def miner() -> FakeMiner:
    return FakeMiner()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path / "token"


@pytest.fixture
async def local(miner: FakeMiner, token: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser on the machine of a gateway that listens on the loopback."""
    reader = MinerReader("http://miner", token, transport=miner.transport())
    transport = httpx2.ASGITransport(application(reader, "127.0.0.1"))
    async with own_async_client(transport=transport, base_url="http://localhost:8404") as client:
        yield client
    await reader.close()


@pytest.fixture
async def remote(miner: FakeMiner, token: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser elsewhere."""
    reader = MinerReader("http://miner", token, transport=miner.transport())
    transport = httpx2.ASGITransport(application(reader, "any"))
    async with own_async_client(transport=transport, base_url="https://gen.example.com") as client:
        yield client
    await reader.close()


async def test_the_page_and_every_file_it_names_is_served_with_a_strict_policy(
    local: httpx2.AsyncClient,
) -> None:
    index = await local.get("/")
    names = set(re.findall(r'"(/page/static/[^"]+)"', index.text))
    assert len(names) >= 3
    for path in ("/", *names):
        answer = await local.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
    assert not re.search(r"https?://(?!www\.w3\.org)", index.text)
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", index.text)


async def test_a_file_that_has_not_changed_is_not_sent_again(local: httpx2.AsyncClient) -> None:
    first = await local.get("/page/static/main.js")
    again = await local.get("/page/static/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["nothing.js", "../routes.py", "%2e%2e/routes.py", "vendor/../../views.py", ""]
)
async def test_nothing_but_the_pages_files_is_served(local: httpx2.AsyncClient, name: str) -> None:
    assert (await local.get(f"/page/static/{name}")).status_code == 404


async def test_on_this_machine_nobody_logs_in(local: httpx2.AsyncClient) -> None:
    assert (await local.get("/page/v1/session")).json() == {"login": False, "guest_key": "guest-key"}
    assert (await local.get("/page/v1/state")).status_code == 200


@pytest.mark.parametrize("path", ["/page/v1/state", "/page/v1/assets/1.spz"])
async def test_elsewhere_a_key_is_asked_for(remote: httpx2.AsyncClient, path: str) -> None:
    assert (await remote.get("/page/v1/session")).json() == {"login": True, "guest_key": None}
    assert (await remote.get(path)).status_code == 401
    assert (await remote.get(path, headers={"x-api-key": "wrong"})).status_code == 401
    assert (await remote.get(path, headers={"x-api-key": KEY})).status_code == 200


@pytest.mark.parametrize(
    ("listens_on", "host", "forwarded", "is_open"),
    [
        ("127.0.0.1", "localhost:8404", False, True),
        ("127.0.0.1", "127.0.0.1", False, True),
        ("::1", "[::1]:8404", False, True),
        ("127.0.0.1", "attacker.example:8404", False, False),
        ("127.0.0.1", "localhost.attacker.example", False, False),
        ("127.0.0.1", "localhost:8404", True, False),
        ("any", "localhost:8404", False, False),
        ("0.0.0.0", "127.0.0.1", False, False),
        ("10.0.0.7", "10.0.0.7", False, False),
        ("127.0.0.1", "", False, False),
        ("127.0.0.1", "[::1", False, False),
    ],
)
def test_only_the_loopback_by_its_own_name_is_open(
    listens_on: str, host: str, forwarded: bool, is_open: bool
) -> None:
    assert open_to_all(listens_on, host, forwarded) is is_open


def test_a_malformed_host_has_no_name() -> None:
    assert host_name("[::1") == ""


async def test_the_state_shows_tasks_of_every_door_workers_and_success(
    local: httpx2.AsyncClient, miner: FakeMiner
) -> None:
    miner.tasks.insert(
        0, task(4, door="mine", validator="", uid=None, outcome=None, state="generating", finished_at=None)
    )
    miner.workers = [
        worker(
            state="busy", job={"key": "key-4", "stage": "latents", "step": 3, "steps": 25, "progress_at": NOW}
        )
    ]
    state = (await local.get("/page/v1/state")).json()
    assert (state["node"], state["queue"]["waiting"], state["miner"]) == ("lab", 3, None)
    first, second = state["assets"][:2]
    assert (first["door"], first["key"], first["seconds"]) == ("mine", "key-4", None)
    assert (second["seed"], second["seconds"], second["repaired"], second["score"]) == (
        1003,
        11.0,
        True,
        0.91,
    )
    (line,) = state["workers"]
    assert line["job"] == {"key": "key-4", "stage": "latents", "step": 3, "steps": 25}
    assert line["memory"] == 0.5
    assert (state["hours"], state["validators"][0]["uid"], state["validators"][0]["accepted"]) == (24, 27, 3)
    assert state["gateways"][0]["name"] == "mine"


async def test_a_worker_that_did_not_answer_is_shown_as_unknown(
    local: httpx2.AsyncClient, miner: FakeMiner
) -> None:
    miner.workers = [{**worker(), "status": None, "state": None, "reason": "no answer"}]
    (line,) = (await local.get("/page/v1/state")).json()["workers"]
    assert (line["memory"], line["gaussians_mean"], line["reason"]) == (None, None, "no answer")


async def test_without_the_miner_the_page_says_so_and_still_shows_the_queue(
    local: httpx2.AsyncClient, miner: FakeMiner
) -> None:
    miner.down = True
    state = (await local.get("/page/v1/state")).json()
    assert (state["miner"], state["assets"], state["queue"]["waiting"]) == (
        "the miner does not answer",
        [],
        3,
    )
    answer = await local.get("/page/v1/assets/1.spz")
    assert (answer.status_code, answer.json()) == (503, {"detail": "the miner does not answer"})


async def test_a_wrong_token_is_named_and_never_shown(local: httpx2.AsyncClient, token: Path) -> None:
    overwrite(token, "something-secret")
    text = (await local.get("/page/v1/state")).text
    assert "its admin token is not ours" in json.loads(text)["miner"]
    assert "something-secret" not in text


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"not json", b'{"tasks": 1}'])
async def test_an_answer_that_is_not_understood_is_said(token: Path, body: bytes) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body))
    reader = MinerReader("http://miner", token, transport=transport)
    client = own_async_client(
        transport=httpx2.ASGITransport(application(reader, "127.0.0.1")), base_url="http://localhost"
    )
    async with client:
        assert "not understood" in (await client.get("/page/v1/state")).json()["miner"]
    await reader.close()


async def test_an_asset_comes_as_kept_as_ply_and_as_the_viewer_reads_it(
    local: httpx2.AsyncClient, miner: FakeMiner
) -> None:
    spz = await local.get("/page/v1/assets/1.spz")
    assert spz.content == miner.assets[1]
    assert spz.headers["content-disposition"] == 'attachment; filename="task-1.spz"'
    assert len(read_ply((await local.get("/page/v1/assets/1.ply")).content)) == 2000
    assert gzip.decompress((await local.get("/page/v1/assets/1.view")).content)[:4] == b"NGSP"


async def test_an_asset_that_is_not_kept_or_broken_says_why(
    local: httpx2.AsyncClient, miner: FakeMiner
) -> None:
    answer = await local.get("/page/v1/assets/77.ply")
    assert (answer.status_code, answer.json()) == (404, {"detail": "no asset of task 77 is kept"})
    for broken in (b"", b"no splat", encode_spz(splats())[:500]):
        miner.assets[2] = broken
        answer = await local.get("/page/v1/assets/2.view")
        assert answer.status_code == 502
        assert answer.json()["detail"].startswith("the kept asset cannot be read")


@pytest.mark.parametrize("path", ["0.spz", "-1.spz", "x.spz", "1.exe", "1e3.ply", f"{2**60}.ply"])
async def test_what_is_no_asset_is_refused_without_asking_the_miner(
    local: httpx2.AsyncClient, miner: FakeMiner, path: str
) -> None:
    assert (await local.get(f"/page/v1/assets/{path}")).status_code in (404, 422)
    assert not miner.asked


async def test_a_miner_on_this_machine_is_found_by_its_ready_file(
    miner: FakeMiner, token: Path, tmp_path: Path
) -> None:
    reader = MinerReader(tmp_path / "miner.json", token, transport=miner.transport())
    with pytest.raises(MinerUnavailableError, match="has not started yet"):
        await reader.places()
    ready = {"schema": "sn17.ready/v1", "port": None, "ops_port": 4567, "pid": 1, "boot_id": "b"}
    overwrite(tmp_path / "miner.json", json.dumps(ready))
    assert (await reader.places()).workers[0].name == "trellis-0"
    assert miner.hosts == {"127.0.0.1:4567"}
    overwrite(tmp_path / "miner.json", '{"schema": "sn17.ready/v1"')
    with pytest.raises(MinerUnavailableError, match="has not started yet"):
        await reader.places()
    await reader.close()


async def test_without_a_miner_set_the_page_says_what_to_set() -> None:
    client = own_async_client(
        transport=httpx2.ASGITransport(application(None, "127.0.0.1")), base_url="http://localhost"
    )
    async with client:
        assert "SN17_MINER_URL" in (await client.get("/page/v1/state")).json()["miner"]
        assert "SN17_MINER_URL" in (await client.get("/page/v1/assets/1.spz")).json()["detail"]
