"""What a stranger can send: everything is refused cheaply, with a reason, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator

import pytest
from sn17_service.server import listen, port_of
from sn17_service.testing import ServiceThread

MAX_BODY = 100_000


def read_all(sock: socket.socket) -> bytes:
    """Until the other side ends it, politely or not."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def body_of(raw: bytes) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(raw.split(b"\r\n\r\n", 1)[1])
    return parsed


def test_an_answer_carries_the_request_id_it_was_given(live: ServiceThread) -> None:
    answer = live.data("POST", "/length", content=b"abc", headers={"x-request-id": "task/7:1"})
    assert answer.json() == {"length": 3}
    assert answer.headers["x-request-id"] == "task/7:1"


@pytest.mark.parametrize("given", ["bad id", "x" * 129, "ü"])
def test_a_strange_request_id_is_replaced(live: ServiceThread, given: str) -> None:
    answer = live.data("POST", "/length", headers={"x-request-id": given.encode("latin-1")})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 16


ERRORS = [
    ("GET", "/nowhere", 404, "not_found"),
    ("GET", "/length", 405, "method_not_allowed"),
    ("GET", "/number/abc", 422, "bad_request"),
    ("GET", "/busy", 503, "busy"),
    ("GET", "/broken", 500, "internal"),
]


def test_every_error_is_a_counted_problem(live: ServiceThread) -> None:
    for method, path, status, code in ERRORS:
        answer = live.data(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["code"] == code
        assert body["detail"]
        assert body["request_id"] == answer.headers["x-request-id"]
        assert "secret" not in answer.text
        assert live.metric("sn17_refusals_total", code=code) == 1


def test_retry_after_is_in_the_header_and_the_body(live: ServiceThread) -> None:
    answer = live.data("GET", "/busy")
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["retry_after_seconds"] == 3


def test_a_body_at_the_limit_is_taken(live: ServiceThread) -> None:
    assert live.data("POST", "/length", content=bytes(MAX_BODY)).json() == {"length": MAX_BODY}


def test_a_body_that_says_it_is_too_large_is_refused_unread(live: ServiceThread) -> None:
    with live.raw() as sock:
        sock.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413")
    assert body_of(answer)["code"] == "too_large"


@pytest.mark.parametrize("path", ["/length", "/form"])
def test_a_body_that_hides_its_size_is_cut_off_while_it_streams(live: ServiceThread, path: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    answer = live.data(
        "POST", path, content=endless(), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"
    assert live.metric("sn17_refusals_total", code="too_large") == 1
    assert live.metric("sn17_refusals_total", code="bad_request") == 0


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"99999999999999999999", b"0x10"])
def test_a_content_length_that_is_no_number_is_refused(live: ServiceThread, length: bytes) -> None:
    with live.raw() as sock:
        sock.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n")
        assert read_all(sock).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


@pytest.mark.parametrize("sent", [b"", b"POST /length HTT", b"POST /length HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_never_ends_is_dropped(live: ServiceThread, sent: bytes) -> None:
    with live.raw() as sock:
        sock.sendall(sent)
        assert read_all(sock) == b""
    assert live.data("POST", "/length").status_code == 200


def test_a_second_head_on_a_kept_connection_that_never_ends_is_dropped(live: ServiceThread) -> None:
    with live.raw() as sock:
        sock.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        first = b""
        while not first.endswith(b"}"):
            first += sock.recv(65536)
        assert first.startswith(b"HTTP/1.1 200")
        sock.sendall(b"POST /length HTTP/1.1\r\nHo")
        assert read_all(sock) == b""


def test_a_body_that_stalls_is_refused(live: ServiceThread) -> None:
    with live.raw() as sock:
        sock.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 408")
    assert body_of(answer)["code"] == "timeout"
    assert live.metric("sn17_refusals_total", code="timeout") == 1


def test_a_stalled_form_is_a_timeout_too(live: ServiceThread) -> None:
    with live.raw() as sock:
        sock.sendall(
            b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 10\r\n\r\na=1"
        )
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_head_of_a_megabyte_is_refused(live: ServiceThread) -> None:
    with live.raw() as sock:
        try:
            sock.sendall(b"POST /length HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n")
            answer = read_all(sock)
        except (ConnectionResetError, BrokenPipeError):
            answer = b"HTTP/1.1 400"
    assert answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n"]
)
def test_what_is_not_http_is_answered_or_dropped_and_harms_nobody(live: ServiceThread, junk: bytes) -> None:
    with live.raw() as sock:
        sock.sendall(junk)
        read_all(sock)
    assert live.data("POST", "/length", content=b"a").json() == {"length": 1}


def test_a_client_that_does_not_read_is_dropped(
    live: ServiceThread, caplog: pytest.LogCaptureFixture
) -> None:
    with live.raw() as sock:
        sock.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        dropped = threading.Event()

        class Watch(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "did not take its answer" in record.getMessage():
                    dropped.set()

        log = logging.getLogger("sn17.demo.access")
        log.addHandler(watch := Watch())
        assert dropped.wait(30)
        log.removeHandler(watch)
        assert len(read_all(sock)) < 512 * 256 * 1024
    assert "Exception in ASGI" not in caplog.text
    assert live.data("POST", "/length", content=b"a").json() == {"length": 1}


def test_answers_do_not_wait_for_acknowledgements() -> None:
    async def nodelay() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            accepted.set_result(option)
            writer.close()

        listening = listen("127.0.0.1", 0)
        server = await asyncio.start_server(connected, sock=listening)
        async with server:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(listening))
            option = await asyncio.wait_for(accepted, 10)
            writer.close()
        return option

    assert asyncio.run(nodelay()) != 0


def test_the_description_names_problems(live: ServiceThread) -> None:
    description = live.data("GET", "/openapi.json").json()
    content = description["paths"]["/length"]["post"]["responses"]["default"]["content"]
    assert set(content) == {"application/problem+json"}
    assert "HTTPValidationError" not in json.dumps(description)
