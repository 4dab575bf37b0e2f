import contextlib
import json
import uuid

import pytest
from bittensor_wallet import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_protocol import PullTask, SubmitResults
from sn17_protocol.transport import (
    EMPTY_BODY_HASH,
    NonceBook,
    TransportError,
    WireRequest,
    build_request,
    parse_request_headers,
    read_response,
    request_headers,
)

MINER = Keypair.create_from_uri("//Miner")
OTHER = Keypair.create_from_uri("//Other")
VALIDATOR = Keypair.create_from_uri("//Validator").ss58_address
NOW = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


def headers(**changes):
    values = {
        "keypair": MINER,
        "synapse": "PullTask",
        "validator_hotkey": VALIDATOR,
        "ip": "127.0.0.1",
        "port": 8091,
        "timeout": 12.0,
        "nonce_ns": NOW,
        "uuid": str(uuid.uuid4()),
    } | changes
    return request_headers(**values)


def verify(raw, *, book=None, **options):
    book = book or NonceBook(lambda: NOW, **options)
    book.verify(parse_request_headers(raw), VALIDATOR)
    return book


def refused(raw, **options):
    with pytest.raises(TransportError) as caught:
        verify(raw, **options)
    return caught.value


def submission(**changes):
    values = {"task_id": "t", "results": "AAAA", "submit_time": NOW, "signature": "c2ln"} | changes
    return SubmitResults(**values)


def request(message) -> WireRequest:
    return build_request(
        message,
        keypair=MINER,
        validator_hotkey=VALIDATOR,
        ip="127.0.0.1",
        port=8091,
        timeout=300,
        nonce_ns=NOW,
        uuid="u",
    )


def test_headers_are_exactly_the_family_of_the_wire():
    assert set(headers()) == {
        "name",
        "timeout",
        "bt_header_axon_ip",
        "bt_header_axon_port",
        "bt_header_axon_hotkey",
        "bt_header_dendrite_ip",
        "bt_header_dendrite_version",
        "bt_header_dendrite_nonce",
        "bt_header_dendrite_uuid",
        "bt_header_dendrite_hotkey",
        "bt_header_dendrite_signature",
        "header_size",
        "total_size",
        "computed_body_hash",
    }
    assert headers()["timeout"] == "12.0"
    assert headers()["computed_body_hash"] == EMPTY_BODY_HASH


def test_a_submission_carries_a_dummy_of_each_required_field():
    made = headers(synapse="SubmitResults")
    dummies = {name: value for name, value in made.items() if "input_obj" in name}
    assert dummies == {
        "bt_header_input_obj_results": "IiI=",
        "bt_header_input_obj_submit_time": "MA==",
        "bt_header_input_obj_signature": "IiI=",
    }


def test_own_headers_verify_whatever_their_case():
    verify({name.title(): value for name, value in headers().items()})


@pytest.mark.parametrize(("age", "ok"), [(15, True), (15.99, True), (16, False), (17, False), (-3600, True)])
def test_first_nonce_must_be_younger_than_timeout_and_grace(age, ok):
    raw = headers(nonce_ns=NOW - int(age * SECOND))
    if ok:
        verify(raw)
    else:
        error = refused(raw)
        assert error.status == 401
        assert "acceptable delta is 16.00 seconds" in error.message


def test_old_transports_need_no_recent_nonce():
    raw = headers(nonce_ns=NOW - 3600 * SECOND) | {"bt_header_dendrite_version": "7001000"}
    verify(raw)


def test_replay_and_overtaken_calls_are_refused_under_one_uuid_only():
    book = verify(headers(uuid="a"))
    for nonce in (NOW, NOW - SECOND):
        assert "newer one" in refused(headers(uuid="a", nonce_ns=nonce), book=book).message
    verify(headers(uuid="b", nonce_ns=NOW - SECOND), book=book)
    verify(headers(uuid="a", nonce_ns=NOW + 1), book=book)


def test_a_known_caller_may_be_late_but_not_replay():
    moments = iter([NOW, NOW + 3600 * SECOND])
    book = NonceBook(lambda: next(moments))
    verify(headers(uuid="a"), book=book)
    verify(headers(uuid="a", nonce_ns=NOW + 1), book=book)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("bt_header_dendrite_signature", "0x" + "00" * 64, 401),
        ("bt_header_dendrite_signature", "0x1234", 401),
        ("bt_header_dendrite_signature", "0xzz", 401),
        ("bt_header_dendrite_signature", "ü", 401),
        ("bt_header_dendrite_hotkey", OTHER.ss58_address, 401),
        ("bt_header_dendrite_hotkey", "nonsense", 401),
        ("bt_header_dendrite_uuid", "tampered", 401),
        ("bt_header_dendrite_nonce", str(NOW + 1), 401),
        ("bt_header_dendrite_nonce", "9" * 30, 401),
        ("bt_header_dendrite_nonce", "9" * 5000, 500),
        ("bt_header_dendrite_nonce", "abc", 500),
        ("bt_header_axon_port", "abc", 500),
        ("timeout", "abc", 500),
        ("computed_body_hash", "00", 401),
    ],
)
def test_tampered_headers_are_refused(name, value, status):
    assert refused(headers() | {name: value}).status == status


@pytest.mark.parametrize("name", ["hotkey", "nonce", "uuid"])
def test_missing_identity_is_refused(name):
    raw = headers()
    del raw[f"bt_header_dendrite_{name}"]
    assert refused(raw).status == 401


def test_missing_signature_passes_only_where_the_older_transport_is_played():
    raw = headers()
    del raw["bt_header_dendrite_signature"]
    assert refused(raw).status == 401
    verify(raw, require_signature=False)


def test_call_meant_for_another_validator_is_refused():
    raw = headers(validator_hotkey=OTHER.ss58_address) | {"bt_header_axon_hotkey": VALIDATOR}
    assert refused(raw).status == 401


def test_missing_dummy_of_a_required_field_is_a_server_error():
    raw = headers(synapse="SubmitResults")
    del raw["bt_header_input_obj_submit_time"]
    with pytest.raises(TransportError) as caught:
        parse_request_headers(raw, SubmitResults)
    assert caught.value.status == 500
    assert "submit_time" in caught.value.message


def test_a_refused_call_leaves_no_trace_in_the_books():
    book = NonceBook(lambda: NOW)
    refused(headers() | {"bt_header_dendrite_signature": "0x" + "00" * 64}, book=book)
    assert book.callers == 0


def test_the_book_is_bounded():
    book = NonceBook(lambda: NOW, capacity=3)
    for number in range(10):
        verify(headers(uuid=str(number)), book=book)
    assert book.callers == 3


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(headers(synapse="SubmitResults"))), st.text(max_size=40)))
def test_no_header_value_breaks_the_reader(changes):
    with contextlib.suppress(TransportError):
        verify(headers(synapse="SubmitResults") | changes)


def test_the_body_names_caller_and_validator():
    made = request(submission())
    body = json.loads(made.body)
    assert made.path == "/SubmitResults"
    assert body["dendrite"]["hotkey"] == MINER.ss58_address
    assert body["axon"]["hotkey"] == VALIDATOR
    assert body["axon"]["status_code"] is None
    assert (body["data_format"], body["data_ver"], body["compression"]) == ("ply", 0, 2)
    assert made.headers["Content-Type"] == "application/json"
    assert made.headers["total_size"] == str(len(made.body))


def test_payload_and_signature_stay_out_of_the_representation():
    assert "AAAA" not in repr(request(submission()))


def test_answers_are_read_or_refused_with_the_validators_words():
    answer = read_response(
        PullTask, 200, b'{"task":{"type":"image","id":"1","prompt":"aGk="},"throttle_period":30,"x":1}'
    )
    assert answer.task is not None
    assert answer.task.type == "image"
    assert answer.throttle_period == 30
    cases = [
        (403, b'{"message":"Forbidden. Key is blacklisted: no."}', "Forbidden. Key is blacklisted: no."),
        (500, b"Internal Server Error", "Internal Server Error"),
        (500, b"", "no message"),
        (502, b"[" * 100_000, "["),
    ]
    for status, body, words in cases:
        with pytest.raises(TransportError) as caught:
            read_response(PullTask, status, body)
        assert caught.value.status == status
        assert caught.value.message.startswith(words)
        assert len(caught.value.message) <= 500
    deep = b'{"task":' * 50_000
    for garbage in (
        b"",
        deep,
        b"[" * 50_000,
        b"\xff",
        b"[]",
        b"nope",
        b'{"cooldown_until":"x"}',
        b'{"task":{"type":"video","id":"1"}}',
    ):
        with pytest.raises(TransportError) as caught:
            read_response(PullTask, 200, garbage)
        assert caught.value.status == 422


TASK = {"type": "text", "id": "1", "prompt": "a red cube"}
VERDICT = {"validation_failed": False, "task_fidelity_score": 0.8}
ECHO = {"results": "", "submit_time": 1, "signature": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"throttle_period": 30.7},
        {"throttle_period": "30"},
        {"throttle_period": {"seconds": 30}},
        {"validation_threshold": None},
        {"validation_threshold": "high"},
        {"cooldown_violations": [1]},
        {"dendrite": "5F..."},
        {"axon": {"port": "eight"}},
        {"timeout": "never", "total_size": []},
        {"a_new_field": {"of": "tomorrow"}},
    ],
)
def test_a_change_that_decides_nothing_does_not_cost_the_task(change):
    answer = read_response(PullTask, 200, json.dumps({"task": TASK, **change}).encode())
    assert answer.task is not None
    assert answer.task.prompt == "a red cube"
    assert 0 <= answer.throttle_period <= 30


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"results": None, "signature": None},
        {"data_format": 3, "compression": "x"},
        {"feedback": {**VERDICT, "current_duel_rating": None}},
        {"feedback": {**VERDICT, "generations_within_the_window": "many", "average_fidelity_score": {}}},
        {"task": {"type": "video"}},
        {"cooldown_until": 1300.9},
    ],
)
@pytest.mark.parametrize("echo", [ECHO, {}])
def test_a_verdict_is_read_whatever_else_changed(change, echo):
    body = {**echo, "feedback": VERDICT, "cooldown_until": 1300, **change}
    answer = read_response(SubmitResults, 200, json.dumps(body).encode())
    assert answer.feedback is not None
    assert (answer.feedback.task_fidelity_score, answer.cooldown_until) == (0.8, 1300)


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (PullTask, {"task": {"type": "text", "id": "1"}}, "task.prompt"),
        (PullTask, {"task": {"type": "video", "id": "1", "prompt": "x"}}, "task.type"),
        (PullTask, {"task": TASK, "cooldown_until": "soon"}, "cooldown_until"),
        (
            SubmitResults,
            {**ECHO, "feedback": {"task_fidelity_score": "good"}},
            "feedback.task_fidelity_score",
        ),
        (SubmitResults, {**ECHO, "feedback": "good"}, "feedback"),
    ],
)
def test_what_decides_and_cannot_be_read_is_named(kind, body, field):
    with pytest.raises(TransportError, match=f"the answer is no {kind.__name__}: .*{field}") as caught:
        read_response(kind, 200, json.dumps(body).encode())
    assert caught.value.status == 422
