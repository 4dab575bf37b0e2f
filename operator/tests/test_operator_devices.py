"""A broken card, told by kubelet, driver or remediations that fail on it; a model that does not start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_contract.metrics import DeviceFault
from sn17_operator.adapters import objects
from sn17_operator.adapters.annotations import changes, history_text, read
from sn17_operator.api import Workers
from sn17_operator.core.devices import settle_trials, suspicion
from sn17_operator.core.evidence import Raw, attribute
from sn17_operator.core.model import (
    Device,
    DeviceHealth,
    Finding,
    Fleet,
    Health,
    History,
    Outcome,
    Phase,
    Pod,
    RuleClass,
    RuleName,
    Trial,
    Verdict,
    Worker,
)
from sn17_operator.core.plan import Act, Reason, Step
from sn17_operator.core.planner import plan
from sn17_operator.core.policy import judge
from sn17_operator.core.readings import Evidence, Gap, Monitoring, Series, Signal
from sn17_operator.status.resource import Status
from sn17_simulation.fleet.play import SPEC, Simulation, spec_with, warmed
from sn17_simulation.fleet.worker import SimWorker

NOW = 10_000.0
CARDS = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
POD = Pod("u", "w", "ns", 0.0, phase=Phase.RUNNING, container_id="c", started_at=1_000.0, ready=True)
AROUND = Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155)


def outcome(rule: RuleName, pod: Pod, evidence: Evidence) -> Outcome:
    found = judge(spec_with(rules={"device": {"action": "Enforce"}}), pod, evidence, AROUND)
    return next(f.outcome for f in found.findings if f.rule is rule)


# --- what is unknown is no fault ----------------------------------------------------------------------


@given(
    devices=st.lists(
        st.builds(Device, st.text(max_size=8), st.sampled_from([DeviceHealth.HEALTHY, DeviceHealth.UNKNOWN]))
    ),
    uuid=st.none() | st.text(max_size=8),
    starts=st.sampled_from([*Gap, 0.0, 4.0, float("nan")]),
)
def test_nothing_but_a_plain_word_against_a_card_counts(
    devices: list[Device], uuid: str | None, starts: Gap | float
) -> None:
    pod = replace(POD, devices=tuple(devices))
    reading = starts if isinstance(starts, Gap) else Series(((NOW - 5, starts),))
    evidence = Evidence("b", {Signal.FAILING_STARTS: reading}, device=uuid)
    for rule in (RuleName.DEVICE_UNHEALTHY, RuleName.MODEL_FAILING):
        assert outcome(rule, pod, evidence) is not Outcome.BREACH


@pytest.mark.parametrize(("starts", "expected"), [(4.0, Outcome.OK), (5.0, Outcome.BREACH)])
def test_five_failed_starts_are_too_many(starts: float, expected: Outcome) -> None:
    evidence = Evidence("b", {Signal.FAILING_STARTS: Series(((NOW - 5, starts),))})
    assert outcome(RuleName.MODEL_FAILING, POD, evidence) is expected


@pytest.mark.parametrize("kubelet", [True, False])
def test_either_word_is_enough(kubelet: bool) -> None:
    pod = replace(
        POD, devices=(Device("GPU-a", DeviceHealth.HEALTHY), Device("GPU-b", DeviceHealth.UNHEALTHY))
    )
    evidence = Evidence("b", {}, device="GPU-a", faults=(DeviceFault.LOST,))
    said = (pod, Evidence("b", {})) if kubelet else (POD, evidence)
    assert outcome(RuleName.DEVICE_UNHEALTHY, *said) is Outcome.BREACH


@pytest.mark.parametrize(
    ("later", "device", "faults"),
    [
        (0.0, "GPU-a", (DeviceFault.XID,)),
        (15.0, None, ()),  # the newest scrape says nothing of the device any more
    ],
)
def test_only_the_newest_scrape_speaks_of_the_device(
    later: float, device: str | None, faults: tuple[DeviceFault, ...]
) -> None:
    at = NOW - 5
    boots = (("b", ((at - 15, 1.0), (at, 1.0), (at + later, 1.0))[: 3 if later else 2]),)
    once = ((at, 1.0),)
    raw = Raw(boots, devices=(("GPU-a", once),), faults=(("xid", once), ("news", once)))
    found = attribute(raw, 1_000.0, {})
    assert (found.device, found.faults) == (device, faults)
    two = replace(raw, devices=(("GPU-a", once), ("GPU-b", once)))
    assert attribute(two, 1_000.0, {}).device is None, "two at once: nobody knows which"


def pod_object(health: str | None, name: str = "GPU-a::0") -> dict[str, Any]:
    resource: dict[str, Any] = {"resourceID": name, **({} if health is None else {"health": health})}
    container = {
        "name": "trellis",
        "containerID": "c",
        "allocatedResourcesStatus": [{"name": "nvidia.com/gpu", "resources": [resource]}],
        "imageID": "left out",
    }
    return {"metadata": {"name": "w", "uid": "u"}, "status": {"containerStatuses": [container]}}


@pytest.mark.parametrize(
    ("said", "read_as"),
    [
        ("Healthy", "Healthy"),
        ("Unhealthy", "Unhealthy"),
        ("Unknown", "Unknown"),
        ("Odd", "Unknown"),
        (None, "Unknown"),
    ],
)
def test_health_of_the_devices_is_read_from_the_pod(said: str | None, read_as: str) -> None:
    found = objects.pod(objects.trim(pod_object(said)), Workers())
    assert found.devices == (Device("GPU-a::0", DeviceHealth(read_as)),)
    bare = {"metadata": {"name": "w", "uid": "u"}, "status": {"containerStatuses": [{"name": "trellis"}]}}
    assert objects.pod(objects.trim(bare), Workers()).devices == ()


# --- DeviceUnhealthy ----------------------------------------------------------------------------------


def condition(sim: Simulation) -> tuple[str, str]:
    found = next(c for c in sim.world.status["conditions"] if c["type"] == "DeviceSuspect")
    return found["status"], found["reason"]


async def with_cards(spec: Any = SPEC, cards: tuple[str, ...] = CARDS, **options: Any) -> Simulation:
    sim = await warmed(4, spec=spec, lives=True, **options)
    sim.world.cards = list(cards)
    for worker, card in zip(sim.workers, cards, strict=False):
        worker.device = card
    await sim.run(2)
    return sim


@pytest.mark.parametrize("kubelet", [True, False])
@pytest.mark.parametrize("action", ["Observe", "Enforce"])
async def test_unhealthy_device_is_told_and_its_pod_moves_only_where_that_is_wanted(
    action: str, kubelet: bool
) -> None:
    sim = await with_cards(spec_with(rules={"device": {"action": action}}))
    worker = sim.workers[0]
    if kubelet:
        sim.world.change(worker, devices=(Device("GPU-a", DeviceHealth.UNHEALTHY),))
    else:
        worker.fault = DeviceFault.ROW_REMAP_FAILED
    await sim.run(2)
    assert condition(sim) == ("True", "DeviceUnhealthy")
    assert sim.count("DeviceUnhealthy") >= 1
    await sim.run(40)
    assert sim.world.evictions == (1 if action == "Enforce" else 0)
    assert (sim.world.exits, sim.world.swaps, sim.world.violations) == ([], 0, [])
    assert condition(sim) == (
        ("False", "NoneSuspect") if action == "Enforce" else ("True", "DeviceUnhealthy")
    )


async def test_device_that_is_well_again_before_its_worker_has_drained_costs_nothing() -> None:
    sim = await with_cards(spec_with(rules={"device": {"action": "Enforce"}}))
    worker = sim.workers[0]
    worker.fault, worker.job_until = DeviceFault.LOST, sim.world.now + 100
    while worker.pod.intent is None:
        await sim.tick()
    worker.fault = ""
    await sim.run(20)
    assert (sim.world.evictions, worker.leases) == (0, {})
    assert sim.count("RemediationWithdrawn") == 1


async def test_hours_of_not_knowing_lead_to_nothing() -> None:
    """Kubelet cannot tell, the driver has no word, and Prometheus is gone for a while."""
    sim = await with_cards(spec_with(rules={"device": {"action": "Enforce"}}))
    for worker in sim.workers:
        sim.world.change(
            worker, devices=(Device("GPU-a", DeviceHealth.UNKNOWN), Device("", DeviceHealth.UNKNOWN))
        )
        worker.device = ""
    sim.workers[0].fault = "what_a_later_version_says"
    await sim.run(60)
    sim.world.prometheus_up = False
    await sim.run(60)
    sim.world.prometheus_up = True
    await sim.run(120)
    assert (sim.world.exits, sim.world.evictions, sim.world.swaps) == ([], 0, 0)
    assert sim.count("WorkerCordoned") == sim.count("DeviceSuspect") == sim.count("DeviceUnhealthy") == 0
    assert condition(sim) == ("False", "NoneSuspect")


# --- DeviceSuspect ------------------------------------------------------------------------------------


async def run_with(sim: Simulation, broken: str, ticks: int) -> None:
    """Every process on a card meets an error of it soon after its start."""
    for _ in range(ticks):
        await sim.tick()
        for worker in sim.workers:
            old = worker.pod.started_at is not None and sim.world.now - worker.pod.started_at > 90
            if worker.device == broken and worker.pod.ready and old:
                worker.gpu_errors, worker.says = 1, "device_error"


def on_card(rule: RuleName | None, *, created_at: float = 0.0, life: str = "new") -> Worker:
    """A worker on the card that the trials below are about; without a rule it is well."""
    evidence = Evidence(life, {}, device="GPU-a")
    found = () if rule is None else (Finding(rule, RuleClass.QUALITY, Outcome.BREACH, "odd"),)
    verdict = Verdict(Health.HEALTHY if rule is None else Health.DEGRADED, found)
    return Worker(replace(POD, created_at=created_at), evidence, verdict)


TRIAL = Trial("GPU-a", "n", "w", "GpuError", NOW - 100, "old", NOW - 60)


@pytest.mark.parametrize(
    ("trial", "worker", "failures"),
    [
        (TRIAL, on_card(RuleName.GPU_ERROR), 1),
        (TRIAL, on_card(RuleName.MEMORY_HIGH), 0),  # a leak is a process's own doing
        (TRIAL, on_card(RuleName.GPU_ERROR, life="old"), 0),  # the act has not been done yet
        (replace(TRIAL, judged=True, failures=1), on_card(RuleName.GPU_ERROR), 1),  # counted already
        (
            TRIAL,
            replace(on_card(RuleName.GPU_ERROR), degraded_since=NOW - 101),
            0,
        ),  # sick before, on a shared card
        (TRIAL, replace(on_card(RuleName.GPU_ERROR), degraded_since=NOW - 100), 1),
        (replace(TRIAL, done_at=NOW - 601), on_card(RuleName.GPU_ERROR), 0),  # it held for ten minutes
    ],
)
def test_what_counts_as_a_remediation_that_failed(trial: Trial, worker: Worker, failures: int) -> None:
    (found,) = settle_trials(SPEC, Fleet((worker,), 4, trials=(trial,)), NOW)
    assert (found.failures, found.suspect_at) == (failures, None)


def test_suspicion_ends_with_proof_alone() -> None:
    """Nothing to judge by proves nothing; ten minutes of good work do."""
    trial = replace(TRIAL, done_at=NOW - 601, failures=2, suspect_at=NOW - 700)
    well = on_card(None)
    idle = replace(well, verdict=Verdict(Health.IDLE))
    assert settle_trials(SPEC, Fleet((idle,), 4, trials=(trial,)), NOW) == (trial,)
    assert settle_trials(SPEC, Fleet((well,), 4, trials=(trial,)), NOW) == ()
    early = replace(trial, done_at=NOW - 599)
    assert settle_trials(SPEC, Fleet((well,), 4, trials=(early,)), NOW) == (early,)


@pytest.mark.parametrize(
    ("rule", "created_at", "act"),
    [
        (RuleName.GPU_ERROR, NOW - 900, Act.CORDON),  # another pod may get another card
        (RuleName.GPU_ERROR, NOW - 300, None),  # it did not
        (RuleName.CANARY_DISAGREES, NOW - 300, Act.CORDON),  # what it makes is of no use to anyone
    ],
)
def test_suspect_card_gets_another_pod_once(rule: RuleName, created_at: float, act: Act | None) -> None:
    trial = replace(TRIAL, failures=2, judged=True, suspect_at=NOW - 600)
    worker = on_card(rule, created_at=created_at)
    worker = replace(worker, pod=replace(worker.pod, history=History(suspect=suspicion(trial))))
    found = plan(SPEC, Fleet((worker,), 1, trials=(trial,)), NOW)
    assert [step.act for step in found.steps] == ([] if act is None else [act])
    assert [b.reason for b in found.blocked] == ([Reason.DEVICE_SUSPECT] if act is None else [])


async def test_two_remediations_that_failed_on_one_card_make_it_suspect_whatever_pod_has_it() -> None:
    sim = await with_cards()
    first = sim.workers[0]
    await run_with(sim, "GPU-a", 400)
    assert sim.world.exits == [f"{first.pod.uid}/c0"], "first a restart of the container"
    assert (sim.world.evictions, sim.world.swaps) == (2, 0), "then other pods, which get the same card"
    (entry,) = sim.world.status["devices"]
    assert (entry["uuid"], entry["rule"], entry["failures"]) == ("GPU-a", "GpuError", 3)
    assert condition(sim) == ("True", "DeviceSuspect")
    worker = next(w for w in sim.workers if w.device == "GPU-a")
    told = next(w for w in sim.world.status["workers"] if w["name"] == worker.pod.name)
    assert told["heldBackBy"] == "DeviceSuspect"
    assert "kubectl cordon" in (worker.pod.history.suspect or "")
    assert sim.world.violations == []
    # A person has changed the card and says so: it is tried anew.
    worker.gpu_errors, worker.says = 0, ""
    sim.world.change(worker, recycle_requested="new card")
    await sim.run(60)
    assert sim.world.status["devices"] == []
    assert condition(sim) == ("False", "NoneSuspect")
    assert worker.pod.history.suspect is None
    assert sim.world.status["status"] == "Healthy"


async def test_pod_that_moves_to_another_card_leaves_no_suspicion_and_what_is_well_is_forgotten() -> None:
    sim = await with_cards(spec_with(recycle={"evictionWindowSeconds": 3_600}))
    sim.world.cards = ["GPU-e", *CARDS]
    await run_with(sim, "GPU-a", 120)
    assert (len(sim.world.exits), sim.world.evictions) == (1, 1)
    assert condition(sim)[0] == "False"
    assert sim.world.status["status"] == "Healthy"
    await sim.run(250)
    assert sim.world.status["devices"] == []


async def test_card_unlike_its_peers_is_suspect_once_a_fresh_process_makes_the_same() -> None:
    sim = await with_cards()
    for worker in sim.workers:
        worker.canary_output = "model/good"
    await sim.run(2)
    sim.workers[0].canary_output = "model/bad"
    await sim.run(3)
    assert condition(sim) == ("True", "CanaryDisagrees")
    await sim.run(40)
    assert condition(sim) == ("True", "DeviceSuspect")
    assert sim.workers[0].pod.history.suspect is not None
    assert sim.count("DeviceSuspect") >= 2, "on the resource when it turned, and on the pod"
    assert (sim.world.exits, sim.world.evictions) == ([], 0), "out of service, and left to a person"
    assert "operator" in sim.workers[0].leases


async def test_the_same_on_most_cards_is_no_fault_of_the_cards() -> None:
    sim = await with_cards(spec_with(maxUnavailable="100%"))
    for _ in range(150):
        await sim.tick()
        for worker in sim.workers:
            old = worker.pod.started_at is not None and sim.world.now - worker.pod.started_at > 90
            worker.gpu_errors = worker.gpu_errors or int(worker.pod.ready and old)
    assert condition(sim) == ("False", "NoneSuspect")
    assert sim.count("DeviceSuspect") == 0


def test_trials_and_the_word_for_others_survive_their_files() -> None:
    times = {"time": "2026-11-30T01:00:00Z", "doneTime": "2026-11-30T01:01:00Z"}
    entry = {
        "uuid": "GPU-a", "node": "n", "pod": "w", "rule": "GpuError", "life": "l", "judged": True,
        "failures": 2,
        **times, "suspectTime": "2026-11-30T01:02:00Z",
    }  # fmt: skip
    status = Status.read({"devices": [entry]})
    assert status.devices is not None
    assert type(status.devices[0]).of(status.devices[0].trial()) == status.devices[0]
    assert status.written()["devices"] == [entry]
    history = History(suspect="GPU-a: tested by nobody")
    step = Step("u", "w", Act.NOTE, Reason.DEVICE_SUSPECT, "", None, history)
    assert changes(step)["sn17.io/device-suspect"] == "GPU-a: tested by nobody"
    assert read({"sn17.io/history": history_text(history)}).history == history
    assert changes(replace(step, history=History()))["sn17.io/device-suspect"] is None


# --- ModelFailing -------------------------------------------------------------------------------------


def fails(worker: SimWorker) -> None:
    worker.failing_starts, worker.says = 6, "model_failing"


async def test_model_that_does_not_start_is_restarted_with_its_container() -> None:
    sim = await with_cards()
    worker = sim.workers[0]
    worker.failing_starts, worker.says = 4, "model_failing"
    await sim.run(10)
    assert sim.world.exits == [], "it tries by itself first"
    fails(worker)
    await sim.run(1)
    entry = next(w for w in sim.world.status["workers"] if w["name"] == worker.pod.name)
    assert entry["reasons"] == ["ModelFailing"]
    await sim.run(30)
    assert sim.world.exits == [f"{worker.pod.uid}/c0"]
    assert (sim.world.status["status"], sim.world.evictions, sim.world.violations) == ("Healthy", 0, [])


async def test_model_that_never_starts_moves_and_is_then_given_up_and_said() -> None:
    sim = await warmed(4, lives=True)
    cursed = {sim.workers[0].pod.uid}
    for _ in range(480):
        known = set(sim.world.workers)
        await sim.tick()
        cursed |= set(sim.world.workers) - known
        for worker in sim.workers:
            if worker.pod.uid in cursed and worker.pod.ready:
                fails(worker)
        if sim.count("RemediationFailed"):
            break
    assert (len(sim.world.exits), sim.world.evictions) == (3, 2), "each pod is restarted before it is moved"
    assert sim.world.status["status"] == "RemediationFailed"
    assert sim.world.violations == []


async def test_container_that_ends_again_and_again_for_it_is_moved_not_waited_for() -> None:
    sim = await with_cards()
    worker = sim.workers[0]
    worker.back_off = 5_000.0
    fails(worker)
    await sim.run(60)
    assert (len(sim.world.exits), sim.world.evictions) == (1, 1)
    assert sim.world.status["status"] == "Healthy"


async def test_model_that_starts_nowhere_is_no_fault_of_one_worker() -> None:
    sim = await with_cards()
    for worker in sim.workers[:3]:
        fails(worker)
    await sim.run(40)
    assert (sim.world.exits, sim.world.evictions) == ([], 0)
    held = {w.get("heldBackBy") for w in sim.world.status["workers"]}
    assert held == {"TooManyUnhealthy"}
