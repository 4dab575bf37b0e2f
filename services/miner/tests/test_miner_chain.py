"""Chain sources: the good way, and everything that does not answer."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from miner_fakes import Changes, Server
from sn17_miner.chain.feed import ChainFeed
from sn17_miner.chain.reader import Reader, serve, snapshot_of
from sn17_miner.chain.sdk import SdkSource
from sn17_miner.chain.source import ChainError, FileSource, HttpSource, parse_snapshot
from sn17_miner.clients.web import new_session
from sn17_protocol import ChainSnapshot, Neuron

NEURON = Neuron(uid=3, hotkey="validator", ip="10.0.0.1", port=8000, serving=True, stake=5000.0)
SNAPSHOT = ChainSnapshot(netuid=17, block=100, taken_at=1000.0, burn_price=0.5, neurons=(NEURON,))
RAW = SNAPSHOT.model_dump_json()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "no snapshot"),
        ("[]", "no snapshot"),
        ('{"netuid": 17}', "block"),
        (RAW.replace('"netuid":17', '"netuid":29'), "subnet 29"),
        (RAW.replace("5000.0", "-1"), "stake"),
        (" " * (17 << 20), "larger"),
    ],
)
def test_what_is_no_snapshot_of_this_subnet_is_refused(raw: str, why: str) -> None:
    with pytest.raises(ChainError, match=why):
        parse_snapshot(raw.encode(), 17)


async def test_a_file(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "snapshot.json", 17)
    with pytest.raises(ChainError, match="No such file"):
        await source.read()
    (tmp_path / "snapshot.json").write_text(RAW)
    assert await source.read() == SNAPSHOT


class Answering(Server):
    """Answers with ``step``: text, a status, or nothing at all."""

    step: Any = RAW

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/snapshot", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        if self.step == "silence":
            await asyncio.Event().wait()
        if isinstance(self.step, int):
            return web.Response(status=self.step)
        return web.Response(text=self.step)


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    made = Answering(Changes())
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize(("step", "why"), [("silence", "within"), (503, "503"), ("junk", "no snapshot")])
async def test_http_that_fails_is_told_within_the_deadline(server: Answering, step: Any, why: str) -> None:
    async with new_session() as session:
        source = HttpSource(session, f"{server.url}/snapshot", 17, deadline=0.3)
        assert await source.read() == SNAPSHOT
        server.step = step
        with pytest.raises(ChainError, match=why):
            await source.read()
        await server.stop()
        with pytest.raises(ChainError, match="Connect"):
            await source.read()


class Scripted:
    """A source that answers from a list."""

    def __init__(self, *answers: ChainSnapshot | ChainError) -> None:
        self.answers = list(answers)
        self.empty = asyncio.Event()

    async def read(self) -> ChainSnapshot:
        if not self.answers:
            self.empty.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, ChainError):
            raise answer
        return answer

    async def close(self) -> None:
        pass


async def test_the_last_good_snapshot_is_served_with_its_age_and_survives_a_restart(tmp_path: Path) -> None:
    store, seen = tmp_path / "snapshot.json", list[int]()
    source = Scripted(SNAPSHOT, ChainError("silent"), ChainError("silent"))

    def feed() -> ChainFeed:
        return ChainFeed(
            source, store, 17, 0.01, lambda: 1600.0, Random(1), lambda snapshot: seen.append(snapshot.block)
        )

    first = feed()
    running = asyncio.create_task(first.run())
    async with asyncio.timeout(10):
        await source.empty.wait()
    running.cancel()
    assert first.snapshot == SNAPSHOT
    assert (first.age, first.error) == (600.0, "silent")
    second = feed()
    second.load()
    assert second.snapshot == SNAPSHOT
    assert seen == [100, 100]
    store.write_text("half a snaps")
    third = feed()
    third.load()
    assert third.snapshot is None
    assert third.age is None


async def test_a_subnet_that_has_lost_all_neurons_at_once_is_not_believed(tmp_path: Path) -> None:
    """A node that has just started may answer so: validators and their cooldowns would be forgotten."""
    store, seen = tmp_path / "snapshot.json", list[int]()
    empty = SNAPSHOT.model_copy(update={"block": 101, "neurons": ()})
    after = SNAPSHOT.model_copy(update={"block": 102})
    source = Scripted(empty.model_copy(update={"block": 99}), SNAPSHOT, empty, after, empty)
    feed = ChainFeed(
        source, store, 17, 0.01, lambda: 1600.0, Random(1), lambda snapshot: seen.append(snapshot.block)
    )
    running = asyncio.create_task(feed.run())
    async with asyncio.timeout(10):
        await source.empty.wait()
    running.cancel()
    assert seen == [99, 100, 102], "a subnet without anybody is believed as long as nobody was seen on it"
    assert feed.error is not None
    assert "block 101 names no neuron" in feed.error
    assert parse_snapshot(store.read_bytes(), 17).block == 102


# --- the reader -----------------------------------------------------------------------------------


def graph(**change: Any) -> SimpleNamespace:
    neuron = SimpleNamespace(
        uid=0,
        hotkey="hk",
        axon="1.2.3.4:8091",
        total_stake=SimpleNamespace(rao=5_000_000_000_000),
        emission=SimpleNamespace(rao=2_000_000_000),
        incentive=0.25,
        block_at_registration=900,
    )
    for name, value in change.items():
        setattr(neuron, name, value)
    raw = {"immunity_period": 200, "burn": 500_000_000}
    return SimpleNamespace(netuid=17, block=1000, neurons=[neuron], raw=raw)


def test_a_metagraph_becomes_a_snapshot() -> None:
    snapshot = snapshot_of(graph(), taken_at=5.0)
    assert (snapshot.block, snapshot.burn_price, snapshot.taken_at) == (1000, 0.5, 5.0)
    neuron = snapshot.neurons[0]
    assert (neuron.stake, neuron.emission, neuron.incentive) == (5000.0, 2.0, 0.25)
    assert (neuron.ip, neuron.port, neuron.serving, neuron.immune_blocks_left) == ("1.2.3.4", 8091, True, 100)


@pytest.mark.parametrize("axon", [None, "", "0.0.0.0:8091", "1.2.3.4:0", "1.2.3.4:99999", "1.2.3.4"])
def test_an_axon_that_is_not_served_is_not_asked(axon: str | None) -> None:
    assert not snapshot_of(graph(axon=axon), taken_at=0.0).neurons[0].serving


def test_the_librarys_own_objects_fit() -> None:
    bittensor = pytest.importorskip("bittensor", reason="needs the extra 'chain'")
    balance = bittensor.Balance.from_rao(7_500_000_000, 17)
    snapshot = snapshot_of(graph(total_stake=balance, emission=balance), taken_at=0.0)
    assert (snapshot.neurons[0].stake, snapshot.neurons[0].emission) == (7.5, 7.5)
    fields = bittensor.MetagraphNeuron.__dataclass_fields__
    assert {"uid", "hotkey", "axon", "total_stake", "emission", "incentive", "block_at_registration"} <= set(
        fields
    )


class FakeClient:
    """``steps`` of connect and metagraph: ``silence``, an exception, or a graph."""

    def __init__(self, connect: Any, metagraph: Any) -> None:
        self.steps = {"connect": connect, "metagraph": metagraph}
        self.closed = False

    async def _step(self, name: str) -> Any:
        step = self.steps[name]
        if step == "silence":
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        return step

    async def connect(self) -> Any:
        return await self._step("connect")

    async def metagraph(self, netuid: int) -> Any:
        return await self._step("metagraph")

    async def close(self) -> None:
        self.closed = True
        if self.steps["metagraph"] == "silence":
            raise RuntimeError("close fails too")


async def test_a_silent_client_is_replaced_and_a_good_one_kept() -> None:
    clients = [
        FakeClient("silence", None),
        FakeClient(None, "silence"),
        FakeClient(ConnectionRefusedError("refused"), None),
        FakeClient(None, graph()),
    ]
    made: list[FakeClient] = []

    def new() -> FakeClient:
        made.append(clients[len(made)])
        return made[-1]

    reader = Reader(new, 17, deadline=0.05, clock=lambda: 9.0)
    for kind in (TimeoutError, TimeoutError, ConnectionRefusedError):
        with pytest.raises(kind):
            await reader.read()
    for _ in range(3):
        assert (await reader.read()).taken_at == 9.0
    assert len(made) == 4
    assert [client.closed for client in made] == [True, True, True, False]


async def test_every_request_line_gets_one_answer_line() -> None:
    answers = list[bytes]()
    results: list[Any] = [SNAPSHOT, RuntimeError("x" * 1000)]

    async def read() -> ChainSnapshot:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]

    async def requests() -> AsyncIterator[bytes]:
        yield b"read\n"
        yield b"read\n"

    await serve(requests(), answers.append, read)
    first, second = (json.loads(line) for line in answers)
    assert ChainSnapshot.model_validate(first["snapshot"]) == SNAPSHOT
    assert second["error"].startswith("RuntimeError: xxx")
    assert len(second["error"]) < 400


# --- the process ----------------------------------------------------------------------------------


def script(body: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time\nfor line in sys.stdin:\n    {body}"]


GOOD = f"print('{{\"snapshot\":' + {RAW!r} + '}}', flush=True)"


async def test_the_reader_process_is_asked_again_and_again() -> None:
    source = SdkSource("ws://unused", 17, deadline=20.0, command=script(GOOD))
    try:
        for _ in range(3):
            assert await source.read() == SNAPSHOT
        assert source.restarts == 0
    finally:
        await source.close()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("time.sleep(600)", "silent"),
        ("sys.exit(3)", "code 3"),
        ("print('junk', flush=True)", "unreadable"),
        ('print(\'{"error": "no route"}\', flush=True)', "no route"),
        ("print('{\"snapshot\": {}}', flush=True)", "netuid"),
        ("print('x' * (20 << 20), flush=True)", "failed"),
    ],
)
async def test_a_reader_process_that_fails_is_told_and_replaced(body: str, why: str) -> None:
    source = SdkSource("ws://unused", 17, deadline=1.5, grace=0.0, command=script(body))
    try:
        with pytest.raises(ChainError, match=why):
            await source.read()
        process = source._process
        with pytest.raises(ChainError, match=why):
            await source.read()
        if "error" not in body and "snapshot" not in body:
            assert source._process is not process or source._process is None
    finally:
        await source.close()


async def test_the_real_reader_against_a_websocket_that_stays_silent_or_refuses() -> None:
    """With the library itself: it accepts, says nothing, and would wait for ever."""
    pytest.importorskip("bittensor", reason="needs the extra 'chain'")
    from websockets.asyncio.server import serve as serve_websocket

    connected = asyncio.Event()

    async def silent(socket: Any) -> None:
        connected.set()
        await socket.wait_closed()

    async with serve_websocket(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = SdkSource(f"ws://127.0.0.1:{port}", 17, deadline=3.0, grace=40.0)
        started = time.monotonic()
        try:
            with pytest.raises(ChainError):
                await source.read()
            assert connected.is_set()
            # The reader ended the call by its own deadline: it was not killed.
            assert source._process is not None
            assert source._process.returncode is None
        finally:
            await source.close()
        assert time.monotonic() - started < 60
    refused = SdkSource(f"ws://127.0.0.1:{port}", 17, deadline=5.0, grace=40.0)
    try:
        with pytest.raises(ChainError):
            await refused.read()
    finally:
        await refused.close()
