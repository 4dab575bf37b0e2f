"""Whatever comes in: no answer is a 500, and nothing grows.

``SN17_FUZZ_CASES`` sets how many mutated requests the short form sends; the slow form sends 100,000.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import schemathesis
from gateway_client import Client, FleetWorker
from gateway_live import LiveGateway
from gateway_mutations import calls, mutations
from gateway_process import GUEST, GatewayProcess
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)
from sn17_contract.gateway import Route
from sn17_http import own_client

CASES = int(os.environ.get("SN17_FUZZ_CASES", "1500"))


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def hostile(folder: Path, count: int) -> None:
    limits = {
        "queue_limit": 200,
        "result_seconds": 5,
        "state_seconds": 5,
        "task_seconds": 5,
        "sweep_seconds": 0.5,
    }
    with GatewayProcess(folder, **limits, unauthorized_daily=0, unknown_key_limit=0) as gateway:
        client, worker = Client(gateway.url, GUEST), FleetWorker(gateway.url)
        rng, seen, early = random.Random(17), dict[int, int](), 0.0
        mutated = iter(())
        with own_client(base_url=gateway.url, timeout=30) as http:
            for number in range(count):
                if number % 200 == 0:
                    client.add()
                    offers = worker.pull(requested_task_count=1)
                    if offers:
                        mutated = mutations(calls(worker, offers[0]), rng)
                if number == count // 5:
                    early = memory_mib(gateway.pid)
                call = next(mutated)
                answer = http.request(call.method, call.path, content=call.body, headers=call.headers)
                assert answer.status_code < 500 or answer.status_code == 503, (call, answer.text)
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            assert http.get("/id").text == "1"
        grown = memory_mib(gateway.pid) - early
        print(f"{count} requests: {dict(sorted(seen.items()))}; memory grew by {grown:.1f} MiB")
        assert {200, 400, 401, 404, 405} <= set(seen), seen
        assert grown < 40


def test_mutated_requests_are_refused_or_answered(tmp_path: Path) -> None:
    hostile(tmp_path, CASES)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_mutated_requests(tmp_path: Path) -> None:
    hostile(tmp_path, 100_000)


#: No schema can say which keys and signatures are right, nor that unknown fields are let through.
UNSAID = [
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
]


def test_the_gateway_is_what_its_schema_says(tmp_path: Path) -> None:
    no_limits = {"rate_get_tasks": 0, "rate_get_status": 0, "rate_get_result": 0}
    with LiveGateway(
        tmp_path, queue_limit=50, unauthorized_daily=0, unknown_key_limit=0, **no_limits
    ) as live:
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert {operation.path for operation in operations} == {*Route, "/health"}
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
            def answers_as_described(case: schemathesis.Case) -> None:
                case.headers["x-api-key"] = GUEST
                case.call_and_validate(timeout=60, excluded_checks=UNSAID)

            answers_as_described()


def test_a_connection_that_stops_in_the_middle_is_let_go(tmp_path: Path) -> None:
    with LiveGateway(tmp_path, body_timeout_seconds=0.5, header_timeout_seconds=0.5) as gateway:
        head = f"POST /add_task HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\nx-api-key: {GUEST}\r\n"
        begun = head.encode() + b"content-type: application/json\r\n\r\n{"
        for start in (b"POST /add_task HT", begun):
            with gateway.live.raw() as raw:
                raw.sendall(start)
                answer = b""
                while piece := raw.recv(4096):
                    answer += piece
                assert answer == b"" or b" 408 " in answer
        assert gateway.client().add().status_code == 200
