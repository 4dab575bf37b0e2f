"""The same bytes go to the real Axon and to our local validator: both must answer alike."""

import asyncio
import json
import re
import time
import uuid

import aiohttp
import pytest
from sn17_protocol import PullTask, SubmitResults
from sn17_protocol.transport import EMPTY_BODY_HASH, build_request

SECOND = 1_000_000_000


def wire_call(keypair, hotkey, port, *, name="PullTask", age=0, sign_for=None):
    message = (
        PullTask()
        if name == "PullTask"
        else SubmitResults(task_id="x", results="AAAA", submit_time=1, signature="AAAA")
    )
    request = build_request(
        message,
        keypair=keypair,
        validator_hotkey=sign_for or hotkey,
        ip="127.0.0.1",
        port=port,
        timeout=12.0,
        nonce_ns=time.time_ns() - int(age * SECOND),
        uuid=str(uuid.uuid4()),
    )
    headers = request.headers | {"bt_header_axon_hotkey": hotkey}
    return request.path, headers, request.body


def without(name):
    return lambda path, headers, body: (path, {k: v for k, v in headers.items() if k != name}, body)


def header(name, value):
    return lambda path, headers, body: (path, headers | {name: value}, body)


def path_of(new):
    return lambda path, headers, body: (new, headers, body)


def body_of(new):
    return lambda path, headers, body: (path, headers, new)


def field(name, value):
    def change(path, headers, body):
        return path, headers, json.dumps(json.loads(body) | {name: value}).encode()

    return change


def same(path, headers, body):
    return path, headers, body


D = "bt_header_dendrite_"
CASES = {
    "untouched": same,
    "unknown call": path_of("/Nothing"),
    "no call": path_of("/"),
    "deeper path": path_of("/PullTask/x"),
    "no nonce": without(f"{D}nonce"),
    "no hotkey": without(f"{D}hotkey"),
    "no uuid": without(f"{D}uuid"),
    "no signature": without(f"{D}signature"),
    "no body hash": without("computed_body_hash"),
    "no content type": without("Content-Type"),
    "no version": without(f"{D}version"),
    "no timeout": without("timeout"),
    "no name": without("name"),
    "no axon headers": lambda p, h, b: (p, {k: v for k, v in h.items() if "axon" not in k}, b),
    "no bittensor headers": lambda p, h, b: (p, {"Content-Type": "application/json"}, b),
    "nonce is no number": header(f"{D}nonce", "abc"),
    "nonce is a fraction": header(f"{D}nonce", "1.5"),
    "nonce is huge": header(f"{D}nonce", "9" * 30),
    "nonce is beyond digits": header(f"{D}nonce", "9" * 5000),
    "nonce is negative": header(f"{D}nonce", "-1"),
    "version is no number": header(f"{D}version", "new"),
    "port is no number": header("bt_header_axon_port", "http"),
    "timeout is no number": header("timeout", "soon"),
    "timeout is infinite": header("timeout", "inf"),
    "timeout is nan": header("timeout", "nan"),
    "hotkey is no address": header(f"{D}hotkey", "abc"),
    "signature is not hex": header(f"{D}signature", "0xzz"),
    "signature is short": header(f"{D}signature", "0x1234"),
    "signature is zero": header(f"{D}signature", "0x" + "00" * 64),
    "signature is empty": header(f"{D}signature", ""),
    "body hash of something": header("computed_body_hash", EMPTY_BODY_HASH[::-1]),
    "plain text": header("Content-Type", "text/plain"),
    "json dialect": header("Content-Type", "application/problem+json"),
    "json with charset": header("Content-Type", "application/json; charset=utf-8"),
    "empty body": body_of(b""),
    "half a body": lambda p, h, b: (p, h, b[: len(b) // 2]),
    "list body": body_of(b"[]"),
    "number body": body_of(b"5"),
    "null body": body_of(b"null"),
    "not utf-8": body_of(b"\xff\xfe{}"),
    "dendrite is null": field("dendrite", None),
    "dendrite is text": field("dendrite", "me"),
    "dendrite port is text": field("dendrite", {"port": "http"}),
    "number where text is meant": field("name", 5),
    "text where a number is meant": field("cooldown_until", "soon"),
    "number as text": field("cooldown_until", "7"),
    "unknown field": field("surprise", {"a": [1, 2]}),
    "unknown task type": field("task", {"type": "video", "id": "1", "prompt": "x"}),
    "status in the body": field("axon", {"status_code": 418}),
}


async def status_of(port, path, headers, body, method="POST"):
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            f"http://127.0.0.1:{port}{path}",
            headers=headers,
            data=body,
            skip_auto_headers=["Content-Type"],
        ) as response,
    ):
        text = await response.text(errors="replace")
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text


async def both(network, real_axon, change, method="POST", **options):
    keypair = network.new_miner()
    answers = []
    for hotkey, port in (
        (real_axon.hotkey, real_axon.port),
        (network.validator["hotkey"], network.validator["port"]),
    ):
        call = wire_call(keypair, hotkey, port, **options)
        answers.append(await status_of(port, *change(*call), method=method))
    return answers


@pytest.mark.parametrize("case", CASES)
async def test_status(network, real_axon, case):
    (expected, told), (got, ours) = await both(network, real_axon, CASES[case])
    assert got == expected, (told, ours)
    if expected == 401:
        # What follows quotes the call itself: signature, text, its age to the hundredth of a second.
        reason = re.split("mismatch with|but request was", told["message"])[0].strip()
        assert ours["message"].startswith(reason)


@pytest.mark.parametrize("age", [15.5, 16.5, -3600])
async def test_age(network, real_axon, age):
    expected, got = await both(network, real_axon, same, age=age)
    assert got[0] == expected[0]


async def test_signed_for_another(network, real_axon):
    expected, got = await both(network, real_axon, same, sign_for="5Other")
    assert got[0] == expected[0] == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_method(network, real_axon, method):
    expected, got = await both(network, real_axon, same, method=method)
    assert got[0] == expected[0]


@pytest.mark.parametrize("name", ["results", "submit_time", "signature"])
async def test_submission_without_a_dummy_header(network, real_axon, name):
    expected, got = await both(
        network, real_axon, without(f"bt_header_input_obj_{name}"), name="SubmitResults"
    )
    assert got[0] == expected[0] == 500


async def test_answer_headers_are_the_same_family(network, real_axon):
    names = []
    for hotkey, port in (
        (real_axon.hotkey, real_axon.port),
        (network.validator["hotkey"], network.validator["port"]),
    ):
        path, headers, body = wire_call(network.new_miner(), hotkey, port)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}{path}", headers=headers, data=body) as response,
        ):
            names.append({name.lower() for name in response.headers} - {"server"})
    assert names[0] == names[1]


async def test_both_close_an_idle_connection_after_five_seconds(network, real_axon):
    """A session kept over a generation is dead when the result is there: why each call has its own."""

    async def idle_time(port, hotkey):
        path, headers, body = wire_call(network.new_miner(), hotkey, port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        await reader.readuntil(b"\r\n\r\n")
        answered = time.monotonic()
        async with asyncio.timeout(20):
            await reader.read(-1)
        writer.close()
        return time.monotonic() - answered

    idle = await asyncio.gather(
        idle_time(real_axon.port, real_axon.hotkey),
        idle_time(network.validator["port"], network.validator["hotkey"]),
    )
    assert all(4 < seconds < 10 for seconds in idle), idle
