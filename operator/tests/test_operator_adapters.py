"""Adapters at their edges: Prometheus, admin endpoints, annotations, objects, recordings, the Lease."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.client.configuration import Configuration
from sn17_contract.http import LeaseOwner
from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleHow, RecycleOutcome
from sn17_operator.adapters import annotations, objects, record
from sn17_operator.adapters.admin import WorkerAdmin
from sn17_operator.adapters.kube import ApiError, KubeApi
from sn17_operator.adapters.lease import Lease, LeaseLost
from sn17_operator.adapters.prometheus import PrometheusMetrics, PrometheusSettings, queries, ratios
from sn17_operator.adapters.store import Store
from sn17_operator.core.model import History, Intent, Phase, Pod, RecycleResult, RuleClass, Stage
from sn17_operator.core.plan import Act, Reason, Step
from sn17_operator.core.readings import Signal
from sn17_operator.core.replay import RecordedWorker, Recording, replay
from sn17_operator.core.signals import METRICS
from sn17_operator.ports import NoRoom, OtherIncarnation, Refused
from sn17_simulation.fleet.play import SPEC, spec_with

NOW = 1_700_000_000.0
POD = Pod("u", "w", "ns", 0.0, address="http://w:9090", phase=Phase.RUNNING, container_id="c", started_at=1.0)

# --- Prometheus ---------------------------------------------------------------------------------------


def prometheus(
    answer: Callable[[httpx2.Request], httpx2.Response], errors: list[str] | None = None, **settings: Any
) -> PrometheusMetrics:
    return PrometheusMetrics(
        PrometheusSettings(url="http://prometheus/prefix", **settings),
        on_error=(errors if errors is not None else []).append,
        transport=httpx2.MockTransport(answer),
    )


def success(result: list[dict[str, Any]], **more: Any) -> httpx2.Response:
    return httpx2.Response(
        200, json={"status": "success", "data": {"resultType": "matrix", "result": result}, **more}
    )


def raise_timeout(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("slow", request=request)


def raise_refused(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raise_timeout, "timeout"),
        (raise_refused, "unreachable"),
        (lambda r: httpx2.Response(503, text="busy"), "http_503"),
        (lambda r: httpx2.Response(422, json={"status": "error", "error": "bad query"}), "http_422"),
        (lambda r: httpx2.Response(200, text="<html>"), "bad_answer"),
        (lambda r: httpx2.Response(200, json={"status": "error", "error": "x"}), "http_200"),
        (lambda r: success([], warnings=["a block is missing"]), "warnings"),
        (lambda r: httpx2.Response(302, headers={"location": "http://elsewhere"}), "http_302"),
    ],
)
async def test_no_usable_answer_makes_the_signal_unknown(
    answer: Callable[[httpx2.Request], httpx2.Response], reason: str
) -> None:
    errors: list[str] = []
    metrics = prometheus(answer, errors)
    found = await metrics.measure(NOW, [SPEC.rules])
    assert set(found.monitoring.failed) >= {Signal.MEMORY, Signal.BOOT, Signal.UP}
    assert found.monitoring.failed[Signal.MEMORY].startswith(reason)
    assert found.workers == {}
    assert set(errors) == {reason}


async def test_every_query_asks_for_one_time_and_keeps_the_prefix() -> None:
    seen: list[httpx2.URL] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url)
        return success([])

    await prometheus(answer, selector='namespace="a",').measure(NOW, [SPEC.rules])
    assert {url.path for url in seen} == {"/prefix/api/v1/query"}
    assert {url.params["time"] for url in seen} == {"1700000000.000"}
    assert len(seen) == len(METRICS) + 4, "one query per signal, whatever the number of workers"


def test_queries_look_back_as_far_as_the_longest_dwell() -> None:
    settings = PrometheusSettings(selector='namespace="a"')
    slow = spec_with(rules={"memory": {"clearForSeconds": 300}})
    asked = queries(settings, [SPEC.rules, slow.rules])
    assert asked[Signal.MEMORY] == 'sn17_memory_unreclaimable_bytes{pod_uid!="",namespace="a"}[335s]'
    assert asked[Signal.DRAINING_USER] == 'sn17_draining{pod_uid!="",namespace="a",by="user"}[35s]'


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bearer_token_file": "token"}, "Bearer secret"),
        ({"username": "u", "password_file": "token"}, "Basic dTpzZWNyZXQ="),
    ],
)
async def test_authorisation_from_files(tmp_path: Path, settings: dict[str, str], expected: str) -> None:
    (tmp_path / "token").write_text("secret\n")
    seen: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("authorization"))
        return success([])

    paths = {k: tmp_path / v if k.endswith("file") else v for k, v in settings.items()}
    await prometheus(answer, **paths).measure(NOW, [SPEC.rules])
    assert set(seen) == {expected}


async def test_counters_by_kind_are_added_up_and_pod_memory_is_found_by_its_cgroup() -> None:
    uid = "0a1b2c3d-0000-1111-2222-333344445555"
    underscored = uid.replace("-", "_")

    def answer(request: httpx2.Request) -> httpx2.Response:
        query = request.url.params["query"]
        if query.startswith("sn17_gpu_errors_total"):
            return success(
                [
                    {"metric": {"pod_uid": uid, "kind": kind}, "values": [[NOW - 5, value]]}
                    for kind, value in (("a", "1"), ("b", "2"))
                ]
            )
        if query.startswith("container_memory"):
            path = f"/kubepods.slice/kubepods-pod{underscored}.slice"
            return success([{"metric": {"id": path}, "values": [[NOW - 5, "7"]]}])
        if query.startswith("max("):
            return success([{"metric": {}, "value": [NOW, "NaN"]}])
        if query.startswith("count(container_memory"):
            return success([{"metric": {}, "value": [NOW, "9"]}])
        return success([])

    found = await prometheus(answer, namespace="ns").measure(NOW, [SPEC.rules])
    raw = found.workers[uid]
    assert raw.series[Signal.GPU_ERRORS] == [((NOW - 5, 3.0),)]
    assert raw.series[Signal.POD_MEMORY] == [((NOW - 5, 7.0),)]
    assert found.monitoring.last_scrape is None
    assert found.monitoring.pod_memory is True


@pytest.mark.parametrize(
    ("namespace", "answer", "expected"),
    [
        ("ns", success([]), False),
        ("ns", httpx2.Response(503, text="busy"), None),
        (None, success([]), None),
    ],
)
async def test_whether_cadvisor_is_scraped_is_known_or_not_asked(
    namespace: str | None, answer: httpx2.Response, expected: bool | None
) -> None:
    found = await prometheus(lambda request: answer, namespace=namespace).measure(NOW, [SPEC.rules])
    assert found.monitoring.pod_memory is expected


def test_success_leaves_out_skipped_and_yield_does_not() -> None:
    found = ratios({"accepted": 6, "rejected": 2, "skipped": 2, "expired": math.nan})
    assert (found.success, found.yielded) == (0.75, 0.6)
    assert ratios({}).success is None
    assert ratios({"skipped": 3}).yielded == 0


# --- the workers' admin endpoints ---------------------------------------------------------------------


def admin(tmp_path: Path, answer: Callable[[httpx2.Request], httpx2.Response]) -> WorkerAdmin:
    (tmp_path / "token").write_text("secret")
    return WorkerAdmin(tmp_path / "token", clock=lambda: NOW, transport=httpx2.MockTransport(answer))


MEMORY = {"unreclaimable_bytes": 5, "working_set_bytes": 6, "limit_bytes": 9}
STATE: dict[str, Any] = {
    "boot_id": "b",
    "life_id": "l",
    "draining": True,
    "leases": [],
    "jobs_in_flight": 0,
}
CANARY = {
    "ran": True,
    "passed": True,
    "reason": None,
    "drift": 0.1,
    "first": False,
    "same_bytes": False,
    "gaussians": 9,
    "findings": [],
}
RESULTS: dict[str, dict[str, Any]] = {
    "resume": {"result": {"lifted": True}},
    "cleanup": {"result": {"before": MEMORY, "after": None}},
    "canary": {"result": CANARY},
}


async def test_admin_speaks_the_contract(tmp_path: Path) -> None:
    seen: list[tuple[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer secret"
        seen.append((request.url.path, json.loads(request.content or b"null")))
        return httpx2.Response(200, json=STATE | RESULTS.get(request.url.path.rsplit("/", 1)[-1], {}))

    client = admin(tmp_path, answer)
    assert await client.drain(POD, LeaseOwner.OPERATOR, "why", 60) is True
    await client.resume(POD, LeaseOwner.OPERATOR)
    await client.cleanup(POD)
    result = await client.canary(POD)
    await client.exit(POD, "b", "why")
    assert seen == [
        ("/admin/v1/drain", {"by": "operator", "reason": "why", "ttl_seconds": 60}),
        ("/admin/v1/resume", {"by": "operator"}),
        ("/admin/v1/cleanup", None),
        ("/admin/v1/canary", None),
        ("/admin/v1/exit", {"boot_id": "b", "reason": "why"}),
    ]
    assert (result.passed, result.at) == (True, NOW)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (lambda r: httpx2.Response(401, json={"code": "unauthorized", "detail": "no"}), "http_401"),
        (lambda r: httpx2.Response(500, text="oops"), "bad_answer"),
        (raise_timeout, "timeout"),
        (raise_refused, "unreachable"),
        (
            lambda r: httpx2.Response(409, json={"code": "boot_id_mismatch", "detail": "gone"}),
            "boot_id_mismatch",
        ),
    ],
)
async def test_admin_refusals_have_a_name(
    tmp_path: Path, answer: Callable[[httpx2.Request], httpx2.Response], outcome: str
) -> None:
    with pytest.raises(Refused) as refused:
        await admin(tmp_path, answer).exit(POD, "b", "why")
    assert refused.value.outcome == outcome
    assert "secret" not in str(refused.value)
    assert isinstance(refused.value, OtherIncarnation) == (outcome == "boot_id_mismatch")


async def test_admin_without_token_says_which_setting(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="SN17_ADMIN_TOKEN_FILE"):
        await WorkerAdmin(None, clock=lambda: NOW).resume(POD, LeaseOwner.OPERATOR)
    with pytest.raises(Refused, match="cannot be read"):
        await WorkerAdmin(tmp_path / "none", clock=lambda: NOW).resume(POD, LeaseOwner.OPERATOR)


@pytest.mark.parametrize("result", [None, {}, CANARY | {"passed": "perhaps"}, "passed"])
async def test_canary_that_does_not_say_whether_it_passed_is_no_answer(tmp_path: Path, result: Any) -> None:
    with pytest.raises(Refused, match="result"):
        await admin(tmp_path, lambda r: httpx2.Response(200, json=STATE | {"result": result})).canary(POD)


async def test_an_answer_without_the_number_of_jobs_is_no_answer(tmp_path: Path) -> None:
    said = {name: value for name, value in STATE.items() if name != "jobs_in_flight"}
    with pytest.raises(Refused, match="jobs_in_flight"):
        await admin(tmp_path, lambda r: httpx2.Response(200, json=said)).drain(
            POD, LeaseOwner.OPERATOR, "why", 60
        )


async def test_worker_of_an_older_image_is_understood(tmp_path: Path) -> None:
    """It knows no model process, and says less of its canary."""
    state = {"boot_id": "b", "draining": True, "leases": [], "jobs_in_flight": 0}
    result = {"ran": True, "passed": False, "drift": 0.4}
    client = admin(tmp_path, lambda r: httpx2.Response(200, json={**state, "result": result}))
    assert await client.drain(POD, LeaseOwner.OPERATOR, "why", 60) is True
    assert (await client.canary(POD)).passed is False
    await client.exit(POD, "b", "why")


async def test_canary_that_did_not_run_neither_passed_nor_failed(tmp_path: Path) -> None:
    body = STATE | {"result": CANARY | {"ran": False, "passed": None, "reason": "a job came first"}}
    result = await admin(tmp_path, lambda r: httpx2.Response(200, json=body)).canary(POD)
    assert (result.passed, result.message) == (None, "a job came first")


RECYCLING = {"boot_id": "b", "life_id": "l", "how": "swap", "state": "ready"}


async def test_recycle_speaks_the_contract_and_the_quality_swap_is_verified(tmp_path: Path) -> None:
    seen: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return httpx2.Response(202, json=RECYCLING)

    await admin(tmp_path, answer).recycle(POD, "l", RecycleHow.SWAP, "full", verify=True)
    body = {"life_id": "l", "how": "swap", "reason": "full", "verify": True}
    assert seen == [("/admin/v1/recycle", body)]


@pytest.mark.parametrize(
    ("code", "refusal"),
    [("no_room", NoRoom), ("life_id_mismatch", OtherIncarnation), ("not_found", Refused), ("conflict", None)],
)
async def test_recycle_that_is_refused(tmp_path: Path, code: str, refusal: type[Refused] | None) -> None:
    """One that is under way already is as good as begun."""
    problem = {
        "type": "about:blank",
        "title": "x",
        "status": 409,
        "code": code,
        "detail": "no",
        "request_id": "r",
    }
    client = admin(tmp_path, lambda r: httpx2.Response(409, json=problem))
    asked = client.recycle(POD, "l", RecycleHow.SWAP, "full", verify=False)
    if refusal is None:
        await asked
    else:
        with pytest.raises(refusal):
            await asked


def worker_status(**changes: Any) -> dict[str, Any]:
    last = {
        "how": "swap", "outcome": "failed", "reason": "canary",
        "from_life": "l", "to_life": None, "at": NOW + 9,
    }  # fmt: skip
    return {
        "worker": "w", "version": "1", "boot_id": "b", "life_id": "l", "state": "ready", "reason": None,
        "job": None, "memory": None, "models": [], "gaussians_mean": None, "model_processes": 1,
        "recycling": None, "phase": None, "start_seconds": 9.5, "last_recycle": last, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, RecycleResult(RecycleOutcome.FAILED, "canary")),
        ({"recycling": "swap"}, RecycleResult(None, start_seconds=9.5)),
        (
            {"recycling": "swap", "phase": "load"},
            RecycleResult(None, phase=SwapPhase.LOAD, start_seconds=9.5),
        ),
        ({"recycling": "swap", "life_id": "other"}, None),
        ({"last_recycle": None}, None),
    ],
)
async def test_end_of_a_recycle_is_heard(
    tmp_path: Path, changes: dict[str, Any], expected: RecycleResult | None
) -> None:
    client = admin(tmp_path, lambda r: httpx2.Response(200, json=worker_status(**changes)))
    pod = replace(POD, data_address="http://w:10006")
    assert await client.recycled(pod, "l", RecycleHow.SWAP, NOW) == expected
    assert await client.recycled(pod, "x", RecycleHow.SWAP, NOW) is None
    before = await client.recycled(pod, "l", RecycleHow.SWAP, NOW + 60)
    assert before is None or before.outcome is None, "an earlier one is not this one"


# --- annotations and objects --------------------------------------------------------------------------

moments = st.floats(1_000_000_000, 4_000_000_000).map(lambda at: round(at, 3))
texts = st.text(max_size=50)
maybe = st.none() | texts
classes = st.sampled_from(RuleClass)
stages = st.sampled_from(Stage)
intents = st.builds(Intent, stages, maybe, texts, texts, classes, texts, moments, moments, maybe)
rests = st.dictionaries(texts, moments, max_size=3)
whens = st.none() | moments
histories = st.builds(
    History, whens, maybe, maybe, rests, maybe, maybe, whens, maybe, st.none() | stages, whens, whens,
    st.none() | st.booleans(),
)  # fmt: skip


@given(st.none() | intents, histories)
def test_notes_survive_the_way_through_the_cluster(intent: Intent | None, history: History) -> None:
    step = Step("u", "w", Act.NOTE, Reason.PAUSED, "", intent, history)
    written = {key: value for key, value in annotations.changes(step).items() if value is not None}
    found = annotations.read(written)
    assert found.malformed == ()
    assert found.intent is None if intent is None else _close(found.intent, intent)
    assert _close(found.history, history)


def _close(found: Any, expected: Any) -> bool:
    """Equal but for the sixth decimal of a second."""
    for name in expected.__slots__:
        a, b = getattr(found, name), getattr(expected, name)
        if isinstance(b, float):
            assert abs(a - b) < 1e-5
        elif isinstance(b, Mapping):
            assert a.keys() == b.keys()
            assert all(abs(a[key] - b[key]) < 1e-5 for key in b)
        else:
            assert a == b
    return True


@given(st.text(max_size=100))
def test_annotations_of_any_text_never_stop_the_tick(text: str) -> None:
    keys = ("intent", "history", "cordon", "recycle-requested", "skip-remediation")
    annotations.read({f"sn17.io/{key}": text for key in keys})


WISHES = ("cordon", "recycle-requested", "skip-remediation")


def _wishes(text: str) -> tuple[str | None, ...]:
    found = annotations.read({f"sn17.io/{key}": text for key in WISHES})
    cordon = None if found.user_cordon is None else found.user_cordon.reason
    return cordon, found.recycle_requested, found.skip


@pytest.mark.parametrize("text", ["false", "no", "0", "off", "False", " NO ", "OFF\n", "n", "f", "null"])
def test_a_wish_that_says_no_is_none(text: str) -> None:
    assert _wishes(text) == (None, None, None)
    assert annotations.read({f"sn17.io/{key}": text for key in WISHES}).malformed == ()
    assert annotations.wish(text) is None


@pytest.mark.parametrize("text", ["true", "yes", "1", "on", "TRUE", " Yes ", "", "t", "y"])
def test_a_wish_that_says_yes_has_no_reason(text: str) -> None:
    assert _wishes(text) == ("", "", "")


@pytest.mark.parametrize("text", ["no more memory", "offline", "new driver", "2026", "10"])
def test_other_words_are_the_reason(text: str) -> None:
    assert _wishes(text) == (text, text, text)


@pytest.mark.parametrize("text", ['{"reason": 1}', '{"reason": "x"', "{}}", "[1]", '"x"', '{"reason": null}'])
def test_a_malformed_wish_is_named_and_not_obeyed(text: str) -> None:
    found = annotations.read({f"sn17.io/{key}": text for key in WISHES})
    assert _wishes(text) == (None, None, None)
    assert set(found.malformed) == {f"sn17.io/{key}" for key in WISHES}


def test_plain_words_of_a_person_are_the_reason() -> None:
    found = annotations.read({"sn17.io/cordon": "new driver", "sn17.io/recycle-requested": "please"})
    assert found.user_cordon is not None
    assert (found.user_cordon.reason, found.recycle_requested) == ("new driver", "please")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["0"]}]}, False),
    ],
)
def test_selector(selector: dict[str, Any], expected: bool) -> None:
    assert objects.matches(selector, {"a": "1"}) is expected


def test_termination_message_says_what_is_missing() -> None:
    state = {"terminated": {"message": "ModelMissing: run the models job\n"}}
    raw = {"status": {"containerStatuses": [{"name": "t", "state": {}, "lastState": state}]}}
    found = objects.missing_in_status(raw)
    assert found is not None
    assert (found.word, found.message) == ("ModelMissing", "run the models job")


def test_spec_that_is_none_is_told_by_field() -> None:
    with pytest.raises(ValueError, match="targetRef"):
        objects.miner({"metadata": {"uid": "u", "name": "m"}, "spec": {}})


def pod_json(version: int, **labels: str) -> dict[str, Any]:
    return {"metadata": {"uid": "u", "name": "w", "resourceVersion": str(version), "labels": labels}}


def test_older_version_never_replaces_a_newer_one() -> None:
    store = Store()
    assert store.pod_seen(pod_json(5, state="written by us"))
    assert not store.pod_seen(pod_json(4, state="late from the watch"))
    store.replace_pods(listed(4, pod_json(3, state="from a cache")))
    assert store.pods["u"]["metadata"]["labels"] == {"state": "written by us"}
    store.replace_pods(listed(9))
    assert store.pods == {}, "a full list removes what a watch has missed"


def test_a_change_of_what_nobody_looks_at_wakes_no_tick_and_is_remembered_as_seen() -> None:
    store = Store()
    assert store.pod_seen(pod_json(5))
    heartbeat = pod_json(6)
    heartbeat["status"] = {"conditions": [{"type": "example.org/Pinged", "status": "True"}]}
    assert not store.pod_seen(heartbeat)
    assert store.pods["u"]["metadata"]["resourceVersion"] == "6", "or the next write would conflict"
    heartbeat["metadata"]["resourceVersion"] = "7"
    heartbeat["status"]["conditions"].append({"type": "Ready", "status": "False"})
    assert store.pod_seen(heartbeat)


def listed(version: int, *items: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


def test_what_happens_while_a_list_is_on_its_way_is_newer_than_the_list() -> None:
    store = Store()
    store.begin_list()
    store.pod_seen(pod_json(8))  # made after the list was taken
    store.replace_pods(listed(7))
    assert set(store.pods) == {"u"}
    store.begin_list()
    store.pod_gone("u")  # deleted after the list was taken
    store.replace_pods(listed(9, pod_json(8)))
    assert store.pods == {}
    store.begin_list()
    store.replace_pods(listed(12, pod_json(11)))
    assert set(store.pods) == {"u"}


# --- recordings ---------------------------------------------------------------------------------------


def recording(ratio: Callable[[int], float]) -> Recording:
    times = [NOW + 15.0 * i for i in range(1, 201)]
    series = {
        Signal.MEMORY: tuple((at, 1000.0 * ratio(i)) for i, at in enumerate(times)),
        Signal.LIMIT: tuple((at, 1000.0) for at in times),
        Signal.GENERATIONS: tuple((at, 20.0) for at in times),
        Signal.GAUSSIANS: tuple((at, 350_000.0) for at in times),
        Signal.SECONDS_P50: tuple((at, 12.0) for at in times),
        Signal.UP: tuple((at, 1.0) for at in times),
    }
    boots = (("b", tuple((at, 1.0) for at in times)),)
    return Recording(NOW, times[-1], 15.0, (RecordedWorker("u", "w", "n", boots, series),))


def test_replay_finds_one_action_in_a_leak_and_none_in_health() -> None:
    leak = replay(SPEC, recording(lambda i: min(0.99, 0.3 + i / 200)))
    assert [d.rule for d in leak.decisions] == ["MemoryHigh"]
    assert leak.per_day()["MemoryHigh"] > 0
    assert replay(SPEC, recording(lambda i: 0.5)).decisions == []


def test_replay_tells_what_its_actions_would_have_spared() -> None:
    """A worker that makes small assets from the 40th sample to the 160th, and one that dies of its leak."""
    times = [NOW + 15.0 * i for i in range(1, 201)]
    whole = recording(lambda i: 0.5)
    faded = dict(whole.workers[0].series)
    faded[Signal.GAUSSIANS] = tuple(
        (at, 50_000.0 if 40 <= i < 160 else 350_000.0) for i, at in enumerate(times)
    )
    small = replace(whole, workers=(replace(whole.workers[0], series=faded),))
    (decision,) = replay(SPEC, small).decisions
    assert decision.act is Act.CORDON
    assert decision.spared_seconds == pytest.approx(15.0 * 120, abs=60.0)
    assert decision.spent_seconds == 180.0

    leak = recording(lambda i: min(0.99, 0.3 + i / 200))
    boots = (
        ("b", tuple((at, 1.0) for at in times[:150])),
        ("c", tuple((at, 1.0) for at in times[170:])),
    )
    died = replace(leak, workers=(replace(leak.workers[0], boots=boots),))
    assert replay(SPEC, died).decisions[0].spared_seconds == pytest.approx(15.0 * 21)
    assert replay(SPEC, leak).decisions[0].spared_seconds == 0.0, "it went on without harm"


async def test_recording_is_of_workers_and_of_no_other_service() -> None:
    """The miner shows its memory and its life too, and is not for the operator to judge."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        worker = {"pod_uid": "u1", "pod": "trellis-0", "node": "n1", "boot_id": "b1"}
        miner = {"pod_uid": "u2", "pod": "miner-0", "node": "n1", "boot_id": "b2"}
        of_workers = request.url.params["query"].startswith("sn17_recent_generations{")
        found = [worker] if of_workers else [worker, miner]
        return success([{"metric": labels, "values": [[NOW, "1"]]} for labels in found])

    metrics = prometheus(answer)
    found = await record.fetch(metrics, NOW - 60, NOW)
    await metrics.close()
    (only,) = found.workers
    assert (only.uid, only.name, only.node) == ("u1", "trellis-0", "n1")
    assert only.boots == (("b1", ((NOW, 1.0),)),)
    assert Signal.MEMORY in only.series


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_recording_in_a_file(tmp_path: Path, name: str) -> None:
    made = recording(lambda i: math.nan if i == 7 else 0.5)
    record.write(made, tmp_path / name)
    found = record.read(tmp_path / name)
    assert found.workers[0].boots == made.workers[0].boots
    samples = found.workers[0].series[Signal.MEMORY]
    assert math.isnan(samples[7][1])
    assert samples[8] == made.workers[0].series[Signal.MEMORY][8]


@pytest.mark.parametrize(("name", "content"), [("a.json", b"{}"), ("b.json", b"[["), ("c.json.gz", b"plain")])
def test_file_that_is_no_recording_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(record.RecordingError, match="not a recording"):
        record.read(tmp_path / name)


# --- the API server's patience ------------------------------------------------------------------------


class Throttling:
    """An API server that answers 429 some times before it does what it is asked."""

    def __init__(self, refusals: int, retry_after: str | None, body: dict[str, Any] | None = None) -> None:
        self.refusals = refusals
        self.asked: list[str] = []
        self._headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._body = body or {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "later"}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if self.refusals:
            self.refusals -= 1
            return web.json_response(self._body, status=429, headers=self._headers)
        return web.json_response({"kind": "Pod"})


@contextlib.asynccontextmanager
async def throttling(server: Throttling) -> AsyncIterator[tuple[KubeApi, list[float], list[str]]]:
    """A client with a clock of its own; how long it slept, and what it counted."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    slept: list[float] = []
    errors: list[str] = []
    moment = [100.0]

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        moment[0] += seconds

    async with TestServer(app) as running:
        configuration = Configuration(host=str(running.make_url("")).rstrip("/"))
        configuration.retries = 0
        api = KubeApi(configuration, on_error=errors.append, monotonic=lambda: moment[0], sleep=sleep)
        try:
            yield api, slept, errors
        finally:
            await api.close()


@pytest.mark.parametrize(("retry_after", "expected"), [("2", 2.0), (None, 1.0), ("soon", 1.0)])
async def test_throttled_call_is_made_again_when_the_server_said(
    retry_after: str | None, expected: float
) -> None:
    server = Throttling(2, retry_after)
    async with throttling(server) as (api, slept, errors):
        assert await api.request("PATCH", "/api/v1/x", body={}) == {"kind": "Pod"}
        assert slept == [expected, expected]
        assert errors == ["throttled", "throttled"]
        assert server.asked == ["PATCH /api/v1/x"] * 3


async def test_patience_has_an_end_and_all_calls_keep_it() -> None:
    server = Throttling(99, "30")
    async with throttling(server) as (api, slept, _):
        for _ in range(3):
            with pytest.raises(ApiError) as refused:
                await api.request("GET", "/api/v1/x")
            assert refused.value.throttled
        assert slept == []
        assert len(server.asked) == 1, "the others were not even sent"
        with pytest.raises(ApiError):
            await api.request("GET", "/lease", urgent=True)
        assert server.asked[-1] == "GET /lease", "the Lease does not wait behind others"


async def test_disruption_budget_is_no_throttling() -> None:
    causes = {"details": {"causes": [{"reason": "DisruptionBudget", "message": "needs 2"}]}}
    server = Throttling(1, "10", {"kind": "Status", "code": 429, "message": "Cannot evict", **causes})
    async with throttling(server) as (api, slept, errors):
        with pytest.raises(ApiError) as refused:
            await api.request("POST", "/api/v1/x/eviction", body={})
        assert not refused.value.throttled
        assert await api.request("GET", "/api/v1/x") == {"kind": "Pod"}
        assert (slept, errors) == ([], [])


# --- the Lease ----------------------------------------------------------------------------------------


class LeaseServer(KubeApi):
    """One Lease with versions; ``down`` stops answering."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False
        self.version = 0

    async def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if self.down:
            raise ApiError(0, "no answer")
        body = options.get("body")
        if method == "GET":
            if self.lease is None:
                raise ApiError(404, "none")
            return json.loads(json.dumps(self.lease))  # type: ignore[no-any-return]
        assert body is not None
        sent = (body.get("metadata") or {}).get("resourceVersion")
        if method == "POST" and self.lease is not None:
            raise ApiError(409, "exists")
        if method == "PUT" and (self.lease is None or sent != str(self.version)):
            raise ApiError(409, "changed")
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lease(server: LeaseServer, clock: Clock, identity: str) -> Lease:
    return Lease(server, "ns", "l", identity, clock=lambda: NOW, monotonic=clock, retry=0.0)


async def test_only_one_holds_and_a_successor_waits_for_the_whole_term() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = lease(server, clock, "a"), lease(server, clock, "b")
    await first.acquire()
    assert first.held
    assert not await second._try()
    clock.now = 9.9
    assert first.held
    assert not await second._try()
    clock.now = 10.1  # the holder no longer trusts itself, five seconds before another may come
    assert not first.held
    assert not await second._try()
    clock.now = 15.1
    assert await second._try()
    assert second.held
    assert not await first._try()
    assert not first.held


async def test_holder_that_cannot_renew_ends() -> None:
    server, clock = LeaseServer(), Clock()
    holder = lease(server, clock, "a")
    await holder.acquire()
    server.down = True
    clock.now = 11
    with pytest.raises(LeaseLost):
        await holder.hold()


async def test_released_lease_is_free_at_once() -> None:
    server, clock = LeaseServer(), Clock()
    first, second = lease(server, clock, "a"), lease(server, clock, "b")
    await first.acquire()
    await first.release()
    assert not first.held
    assert await second._try()
