"""Our client calls the real Axon."""

import asyncio
import time
import uuid

import aiohttp
import pytest
import real
from bittensor_wallet import Keypair
from sn17_miner.clients.axon import AxonClient, CallError
from sn17_protocol import GetVersion, Neuron, PullTask, SubmitResults, Synapse
from sn17_protocol.transport import TransportError, build_request, read_response

KEYPAIR = Keypair.create_from_uri("//OurMiner")


@pytest.fixture
async def client():
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield AxonClient(session, KEYPAIR, pull_timeout=12.0, submit_timeout=300.0, clock_ns=time.time_ns)


@pytest.fixture
def neuron(real_axon):
    real_axon.seen.clear()
    real_axon.blacklisted.clear()
    real_axon.task = None
    return Neuron(uid=0, hotkey=real_axon.hotkey, ip="127.0.0.1", port=real_axon.port, serving=True)


def submission(payload="AAAA"):
    return SubmitResults(task_id="7", results=payload, submit_time=time.time_ns(), signature="c2ln")


async def send(real_axon, message, *, change=lambda headers: headers, **overrides):
    values = {
        "keypair": KEYPAIR,
        "validator_hotkey": real_axon.hotkey,
        "ip": "127.0.0.1",
        "port": real_axon.port,
        "timeout": 12.0,
        "nonce_ns": time.time_ns(),
        "uuid": str(uuid.uuid4()),
    } | overrides
    request = build_request(message, **values)
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{real_axon.port}{request.path}",
            headers=change(request.headers),
            data=request.body,
        ) as response,
    ):
        return read_response(type(message), response.status, await response.read())


async def test_pull(client, neuron, real_axon):
    real_axon.task = real.TextTask(id="7", prompt="a red torus")
    answer = await client.pull(neuron)
    assert answer.value.task.prompt == "a red torus"
    assert answer.value.throttle_period == 30
    assert abs(answer.date - time.time()) < 5
    seen = real_axon.seen[0]
    assert seen.dendrite.hotkey == KEYPAIR.ss58_address
    assert seen.axon.hotkey == real_axon.hotkey
    assert seen.timeout == 12.0


async def test_pull_of_an_image(client, neuron, real_axon):
    real_axon.task = real.ImageTask(id="8", prompt="aGVsbG8=")
    task = (await client.pull(neuron)).value.task
    assert (task.type, task.id, task.prompt) == ("image", "8", "aGVsbG8=")


async def test_submit(client, neuron, real_axon):
    answer = (await client.submit(neuron, submission("A" * 4_000_000))).value
    assert answer.feedback.task_fidelity_score == 0.75
    assert answer.cooldown_until == 1234
    seen = real_axon.seen[0]
    assert len(seen.results) == 4_000_000
    assert (seen.data_format, seen.data_ver, seen.compression) == ("ply", 0, 2)


async def test_version_and_ping(real_axon):
    assert (await send(real_axon, GetVersion())).version == 9
    assert (await send(real_axon, Synapse())).name == "Synapse"


async def test_a_call_turned_away_says_why(client, neuron, real_axon):
    real_axon.blacklisted.add(KEYPAIR.ss58_address)
    with pytest.raises(CallError) as caught:
        await client.submit(neuron, submission())
    assert caught.value.status == 403
    assert "no task assigned" in caught.value.message


async def test_a_call_for_another_validator_is_refused(client, neuron):
    with pytest.raises(CallError) as caught:
        await client.pull(neuron.model_copy(update={"hotkey": KEYPAIR.ss58_address}))
    assert caught.value.status == 401


async def test_wrong_signature_replay_stale_and_tampered(real_axon, neuron):
    nonce, name = time.time_ns(), str(uuid.uuid4())
    message = PullTask()
    await send(real_axon, message, nonce_ns=nonce, uuid=name)
    refusals = [
        {"nonce_ns": nonce, "uuid": name},
        {"nonce_ns": time.time_ns() - 17_000_000_000},
        {"change": lambda h: h | {"bt_header_dendrite_signature": "0x" + "00" * 64}},
        {"change": lambda h: h | {"bt_header_dendrite_hotkey": real_axon.hotkey}},
        {"change": lambda h: {k: v for k, v in h.items() if k != "bt_header_dendrite_nonce"}},
    ]
    for refusal in refusals:
        with pytest.raises(TransportError) as caught:
            await send(real_axon, message, **refusal)
        assert caught.value.status == 401, refusal


async def test_a_missing_dummy_of_a_required_field_is_a_server_error(real_axon, neuron):
    with pytest.raises(TransportError) as caught:
        await send(
            real_axon,
            submission(),
            change=lambda h: {k: v for k, v in h.items() if k != "bt_header_input_obj_results"},
        )
    assert caught.value.status == 500


async def test_many_calls_at_once_pass_with_a_uuid_each(client, neuron):
    answers = await asyncio.gather(*(client.pull(neuron) for _ in range(20)))
    assert len(answers) == 20
