"""A validator over real HTTP."""

import asyncio
import json
import socket
import struct

import aiohttp
import pytest
from devnet_harness import MINER, OTHER
from sn17_devnet.faults import FaultRule
from sn17_devnet.validator_state import Verdict
from sn17_protocol import GetVersion, PullTask, Synapse
from sn17_protocol.transport import TransportError, parse_request_headers


async def test_from_pull_to_feedback(local):
    pulled = await local.pull()
    assert pulled.task.type == "text"
    assert (pulled.validation_threshold, pulled.throttle_period) == (0.6, 30)
    answer = await local.submit(pulled.task)
    assert answer.feedback.task_fidelity_score == 0.8
    assert answer.cooldown_until > local.clock() + 260
    assert (answer.results, answer.signature) == ("", "")
    assert local.records[0].outcome == "accepted"


async def test_the_answer_repeats_what_the_caller_sent(local):
    answer = await local.call(Synapse(total_size=5))
    assert answer.total_size == 5
    assert answer.dendrite_hotkey == MINER.ss58_address
    assert answer.axon.status_code == 200
    assert answer.axon.status_message == "Success"
    assert answer.axon.process_time >= 0


async def test_a_deprecated_task_field_names_the_task(local):
    task = (await local.pull()).task
    message = local.submission(task, task_id="").model_copy(update={"task": task})
    answer = await local.call(message)
    assert answer.feedback.task_fidelity_score == 0.8


async def test_a_client_that_hangs_up_during_validation_still_counts(local):
    task = (await local.pull()).task
    local.judge.gate.clear()
    with pytest.raises(TimeoutError):
        await local.submit(task, timeout=0.3)
    assert (await local.pull()).task.id == task.id
    locked = await local.submit(task)
    assert locked.feedback.task_fidelity_score == 0.0
    assert locked.cooldown_until == 0
    local.judge.gate.set()
    async with asyncio.timeout(10):
        while local.records[0].outcome == "open":
            await asyncio.sleep(0.01)
    assert local.records[0].outcome == "accepted"
    assert local.judge.calls == 1
    with pytest.raises(TransportError) as caught:
        await local.submit(task)
    assert caught.value.status == 403


async def test_get_version_is_for_stakers(local):
    with pytest.raises(TransportError) as caught:
        await local.call(GetVersion())
    assert caught.value.status == 403
    assert (await local.call(GetVersion(), OTHER)).version > 0


async def test_the_blacklist_comes_before_the_signature(local):
    """The headers are believed unverified: a forged caller without a task is forbidden, not unauthorised."""
    request = local.request(local.submission((await local.pull(OTHER)).task))
    request.headers["bt_header_dendrite_signature"] = "0x" + "00" * 64
    status, _ = await local.send(request)
    assert status == 403


async def test_error_answers_are_signed_and_name_their_status(local):
    request = local.request(PullTask(), timeout=1.0, nonce_ns=1)
    async with (
        aiohttp.ClientSession() as session,
        session.post(local.url + request.path, headers=request.headers, data=request.body) as response,
    ):
        assert response.status == 401
        told = parse_request_headers(response.headers)
        assert "acceptable delta" in (await response.json())["message"]
    assert told.axon.status_code == 401
    text = f"{told.axon.nonce}.{told.dendrite.hotkey}.{told.axon.hotkey}.{told.axon.uuid}"
    assert local.validator._keypair.verify(text, told.axon.signature)


async def test_a_body_over_the_limit_is_refused(local_with):
    local = await local_with(max_body_bytes=1000)
    with pytest.raises(TransportError) as caught:
        await local.submit((await local.pull()).task, results="A" * 5000)
    assert caught.value.status == 413
    assert (await local.pull()).task is not None


async def test_a_body_that_never_arrives_is_given_up(local_with):
    local = await local_with(body_timeout=0.2)
    request = local.request(PullTask())
    reader, writer = await asyncio.open_connection("127.0.0.1", local.validator.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    writer.write(f"POST /PullTask HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 500\r\n\r\n{{".encode())
    async with asyncio.timeout(10):
        assert b" 408 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST /PullTask HTTP/1.1\r\nname: Pull"], ids=["nothing", "part"])
async def test_a_head_that_never_ends_is_cut(local_with, sent):
    local = await local_with(head_timeout=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", local.validator.port)
    writer.write(sent)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    assert (await local.pull()).task is not None


async def test_an_unsigned_call_passes_on_the_older_transport_only(local_with, tmp_path):
    for required, status in ((False, 200), (True, 401)):
        local = await local_with(require_signature=required)
        request = local.request(PullTask())
        del request.headers["bt_header_dendrite_signature"]
        assert (await local.send(request))[0] == status


# --- restarts and faults -------------------------------------------------------------------------------


async def test_a_restart_keeps_what_was_saved_and_the_port(local):
    saved = (await local.pull()).task
    local.validator.sync()
    lost = (await local.pull(OTHER)).task
    port = local.validator.port
    await local.validator.restart(0.0)
    assert local.validator.port == port
    assert (await local.pull()).task == saved
    with pytest.raises(TransportError) as caught:
        await local.submit(lost, keypair=OTHER)
    assert caught.value.status == 403
    assert [record.outcome for record in local.records] == ["open", "dropped"]


async def test_a_restart_cuts_a_validation_off(local):
    task = (await local.pull()).task
    local.validator.sync()
    local.judge.gate.clear()
    submitting = asyncio.create_task(local.submit(task))
    await local.judge.asked.wait()
    await local.validator.restart(0.0)
    local.judge.gate.set()
    with pytest.raises(aiohttp.ClientError):
        await submitting
    assert local.records[0].outcome == "open"
    assert (await local.submit(task)).feedback.task_fidelity_score == 0.8


async def test_nobody_listens_while_a_validator_restarts(local_with):
    local = await local_with(FaultRule(kind="restart", seconds=0.3, limit=1))
    with pytest.raises(aiohttp.ClientError):
        await local.pull()
    async with asyncio.timeout(10):
        while local.validator.up.is_set():
            await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.ClientConnectorError):
            await local.pull()
        await local.validator.up.wait()
    assert (await local.pull()).task is not None
    assert local.validator.ledger.restarts == 1


async def test_a_validator_whose_port_is_taken_waits_for_it(local, caplog):
    await local.validator.stop()
    squatter = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", local.validator.port)
    restarting = asyncio.create_task(local.validator.restart(0.0))
    async with asyncio.timeout(10):
        while "cannot listen yet" not in caplog.text:
            await asyncio.sleep(0.01)
        squatter.close()
        await restarting
    assert (await local.pull()).task is not None


async def test_the_end_comes_also_in_the_middle_of_a_restart(local):
    local.validator.restart_soon(3600)
    async with asyncio.timeout(10):
        while local.validator.up.is_set():
            await asyncio.sleep(0.01)
        await local.validator.close()
    assert not local.validator.up.is_set()


async def test_a_state_file_of_another_process_is_read(local, local_with):
    task = (await local.pull()).task
    local.validator.sync()
    other = await local_with()
    assert (await other.pull()).task == task


async def test_a_reset_before_leaves_no_task_and_one_after_leaves_it(local_with):
    before = await local_with(FaultRule(kind="reset", limit=1))
    with pytest.raises(aiohttp.ClientError):
        await before.pull()
    assert before.records == []
    after = await local_with(FaultRule(kind="reset", when="after", limit=1))
    with pytest.raises(aiohttp.ClientError):
        await after.pull()
    held = after.records[0].task_id
    assert (await after.pull()).task.id == held


async def test_the_answer_to_a_submission_may_be_lost_after_it_counted(local_with):
    local = await local_with(FaultRule(kind="reset", call="SubmitResults", when="after"))
    task = (await local.pull()).task
    with pytest.raises(aiohttp.ClientError):
        await local.submit(task)
    assert local.records[0].outcome == "accepted"


@pytest.mark.parametrize("status", [408, 500, 503])
async def test_a_status_fault(local_with, status):
    local = await local_with(FaultRule(kind="status", status=status, limit=1))
    with pytest.raises(TransportError) as caught:
        await local.pull()
    assert caught.value.status == status
    assert (await local.pull()).task is not None


async def test_a_slow_answer_outlasts_the_client(local_with):
    local = await local_with(FaultRule(kind="slow", when="after", seconds=30, limit=1))
    with pytest.raises(TimeoutError):
        await local.call(PullTask(), timeout=0.3)
    assert (await local.pull()).task.id == local.records[0].task_id


async def test_a_garbled_answer_is_no_answer(local_with):
    local = await local_with(FaultRule(kind="garbage", when="after", limit=1))
    with pytest.raises(TransportError) as caught:
        await local.pull()
    assert caught.value.status == 422


async def test_a_validation_service_that_is_down_costs_nothing(local_with):
    local = await local_with(FaultRule(kind="unvalidated"))
    answer = await local.submit((await local.pull()).task)
    assert answer.feedback.validation_failed is True
    assert local.records[0].outcome == "unvalidated"


async def test_a_judge_that_breaks_is_a_server_error_and_the_task_stays(local):
    task = (await local.pull()).task
    local.judge.verdict = None
    with pytest.raises(TransportError) as caught:
        await local.submit(task)
    assert caught.value.status == 500
    local.judge.verdict = Verdict(0.9)
    local.clock.ahead += 31
    assert (await local.submit(task)).feedback.task_fidelity_score == 0.9


# --- whatever else comes down the wire ---------------------------------------------------------------------


async def answers_still(local):
    assert (await local.pull()).task is not None


async def raw(port, data, *, reset=False):
    """Send bytes and read what comes until the end, if it comes at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return b""
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


MALFORMED = {
    "no http": b"hello\r\n\r\n",
    "half a request line": b"POST /Pull",
    "no version": b"POST /PullTask\r\n\r\n",
    "binary": bytes(range(256)) * 16,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "negative length": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
    "absurd length": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
    "bad chunk": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge header": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"POST /PullTask HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "header injection": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nname: a\x00b\r\n\r\n",
    "huge path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "strange path": b"GET /%00%ff%2f..//PullTask HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": b"GET http://elsewhere/PullTask HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "expect": b"POST /PullTask HTTP/1.1\r\nHost: x\r\nExpect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}",
    "upgrade": b"GET /PullTask HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_http_is_survived(local, name):
    answer = await raw(local.validator.port, MALFORMED[name])
    assert b" 200 " not in answer.split(b"\r\n")[0]
    await answers_still(local)


async def test_callers_that_vanish_are_survived(local):
    request = local.request(PullTask())
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    whole = (
        f"POST /PullTask HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(request.body)}\r\n\r\n".encode()
    )
    whole += request.body
    for cut in range(0, len(whole), 97):
        await raw(local.validator.port, whole[:cut], reset=True)
    await answers_still(local)


BODIES = {
    "deep": b"[" * 200_000,
    "deep object": b'{"axon":' * 100_000,
    "long number": b'{"cooldown_until":' + b"9" * 100_000 + b"}",
    "infinity": b'{"cooldown_until":1e999,"timeout":NaN}',
    "surrogate": b'{"name":"\\ud800"}',
    "header injection": json.dumps({"dendrite": {"hotkey": "a\r\nset-cookie: b"}}).encode(),
    "wide": json.dumps({"dendrite": {"uuid": "日本" * 5000}}).encode(),
    "silly status": json.dumps({"dendrite": {"hotkey": "a"}, "axon": {"status_code": 99999999}}).encode(),
    "no status": json.dumps({"dendrite": {"hotkey": "a"}, "axon": {"status_code": 100}}).encode(),
    "duplicate keys": b'{"axon":{},"axon":null,"dendrite":{"hotkey":"a"}}',
    "empty object": b"{}",
}


@pytest.mark.parametrize("name", BODIES)
async def test_odd_bodies_of_signed_calls_are_survived(local, name):
    request = local.request(PullTask())
    reader, writer = await asyncio.open_connection("127.0.0.1", local.validator.port)
    head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
    body = BODIES[name]
    writer.write(f"POST /PullTask HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode())
    writer.write(body)
    async with asyncio.timeout(10):
        status = (await reader.readline()).split()[1]
    writer.close()
    assert status in (b"200", b"400", b"422", b"500")
    await answers_still(local)
