"""How workers are shared between doors, when nodes are asked, which lane a generation gets: pure values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_contract.gateway import DEFAULT_MODEL, GatewayInfo, TaskOffer
from sn17_contract.tasks import Lane, NodePhase, Phase, Signal, TaskKind
from sn17_miner.core.client_gate import ClientSituation, choose_for_client
from sn17_miner.core.doors import Doors
from sn17_miner.core.gate import Step
from sn17_miner.core.lanes import FAST_SHARE, FastLane, LaneChoice, Times, choose_lane
from sn17_miner.core.nodes import MOST_NODES, Nodes
from sn17_miner.core.receipt import FINAL, GatewayError, Receipt, read_receipt
from sn17_miner.core.scheduler import FreeWorker, Scheduler
from sn17_miner.core.sharing import Sharing
from sn17_miner.core.sources import BadOfferError, Source, node_urls, read_offer, worker_seed
from sn17_miner.core.timing import Timing
from sn17_protocol import Neuron

START = 1_700_000_000.0
DOORS = ("validators", "home", "away")
WEIGHTS = {"validators": 4.0, "home": 1.0, "away": 1.0}

weights = st.fixed_dictionaries({door: st.floats(0.05, 20.0) for door in DOORS})
wanted = st.fixed_dictionaries({door: st.integers(0, 5) for door in DOORS})


def give(sharing: Sharing, free: int, wanted: dict[str, int]) -> dict[str, int]:
    """Share, and everybody takes what was granted."""
    granted = sharing.share(free, wanted)
    for door, workers in granted.items():
        sharing.took(door, workers)
    return granted


def most_before(door: str, chosen: dict[str, float]) -> int:
    """How many workers go to others, at most, while a door waits."""
    return sum(math.floor(w / chosen[door]) + 2 for other, w in chosen.items() if other != door)


@given(
    chosen=weights,
    door=st.sampled_from(DOORS),
    turns=st.lists(st.tuples(st.integers(0, 3), wanted, st.sampled_from(DOORS), st.booleans()), max_size=120),
)
def test_no_door_that_waits_is_passed_over_for_ever(
    chosen: dict[str, float], door: str, turns: list[tuple[int, dict[str, int], str, bool]]
) -> None:
    sharing, others = Sharing(chosen), 0
    for free, wants, gives_back, returns in turns:
        granted = give(sharing, free, wants | {door: 5})
        # Pulls that bring nothing cost their door nothing, and the one that waits no turn.
        if returns and granted[gives_back]:
            sharing.returned(gives_back, granted[gives_back])
            granted[gives_back] = 0
        others = 0 if granted[door] else others + sum(granted.values())
        assert others <= most_before(door, chosen)


@given(chosen=weights, free=st.integers(1, 4), turns=st.integers(1, 300))
def test_busy_doors_are_served_in_proportion_to_their_weights(
    chosen: dict[str, float], free: int, turns: int
) -> None:
    sharing, served = Sharing(chosen), Counter[str]()
    for _ in range(turns):
        served.update(give(sharing, free, dict.fromkeys(DOORS, 5)))
    assert served.total() == free * turns
    for one in DOORS:
        for other in DOORS:
            unfair = abs(served[one] / chosen[one] - served[other] / chosen[other])
            assert unfair <= 1 / chosen[one] + 1 / chosen[other] + 1e-6


@given(free=st.integers(0, 9), wants=wanted, chosen=weights)
def test_no_worker_is_granted_twice_or_unasked_or_kept_from_work(
    free: int, wants: dict[str, int], chosen: dict[str, float]
) -> None:
    granted = Sharing(chosen).share(free, wants)
    assert all(0 <= granted[door] <= wants[door] for door in DOORS)
    assert sum(granted.values()) == min(free, sum(wants.values()))


def test_validators_come_first_and_gateways_still_get_their_share() -> None:
    sharing = Sharing(WEIGHTS)
    order = [next(d for d, n in give(sharing, 1, dict.fromkeys(DOORS, 1)).items() if n) for _ in range(12)]
    assert order[0] == "validators"
    assert Counter(order) == {"validators": 8, "home": 2, "away": 2}


def test_idleness_earns_no_credit() -> None:
    sharing = Sharing({"validators": 1.0, "home": 1.0})
    for _ in range(50):
        give(sharing, 1, {"home": 1})
    after = [give(sharing, 1, {"validators": 1, "home": 1})["validators"] for _ in range(20)]
    assert 10 <= sum(after) <= 11


# --- nodes ------------------------------------------------------------------------------------------


def nodes(*urls: str) -> Nodes:
    made = Nodes({"home": 1.0}, Random(1))
    made.sync(START, "home", urls or ("http://a",))
    return made


def test_an_empty_node_is_asked_for_one_task_after_a_pause_and_a_full_one_for_more_at_once() -> None:
    made = nodes()
    assert made.wanted(START, 4) == {"home": 1}
    (order,) = made.orders(START, {"home": 4})
    assert order.count == 1
    assert made.wanted(START, 4) == {"home": 0}
    made.on_tasks(START, order.node, 1, 0)
    assert made.wake_at() == START + 1.0
    assert made.orders(START + 0.9, {"home": 4}) == []
    (order,) = made.orders(START + 1.0, {"home": 4})
    made.on_tasks(START + 1.1, order.node, 1, 1)
    assert made.wanted(START + 1.1, 4) == {"home": 4}
    (order,) = made.orders(START + 1.1, {"home": 3})
    assert order.count == 3
    made.on_tasks(START + 1.2, order.node, 3, 2)
    assert (order.node.phase, order.node.plenty) == (NodePhase.RESTING, False)


def test_one_node_that_fails_backs_off_and_keeps_no_other_waiting() -> None:
    made = nodes("http://a", "http://b")
    rests, now = [], START
    for _ in range(8):
        orders = {order.node.url: order.node for order in made.orders(now, {"home": 2})}
        made.on_tasks(now, orders["http://b"], 1, 1)
        bad = made.nodes["home", "http://a"]
        made.on_failed(now, bad, "no answer")
        rests.append(bad.wake_at - now)
        assert [order.node.url for order in made.orders(now, {"home": 2})] == ["http://b"]
        made.on_tasks(now, made.nodes["home", "http://b"], 1, 1)
        now = bad.wake_at
    assert rests[0] <= 2.4
    assert rests[-1] > 60
    made.orders(now, {"home": 1})
    made.on_failed(now, made.nodes["home", "http://a"], "not welcome", refused=True)
    assert bad.wake_at - now >= 24


def test_a_node_that_is_no_longer_listed_goes_when_its_call_is_over() -> None:
    made = nodes("http://a", "http://b")
    order = made.orders(START, {"home": 1})[0]
    assert made.sync(START, "home", ["http://c"]) == (["http://c"], ["http://a", "http://b"])
    assert {url for _, url in made.nodes} == {"http://a", "http://c"}
    made.on_tasks(START, order.node, 1, 1)
    assert {url for _, url in made.nodes} == {"http://c"}


def test_a_list_of_nodes_without_end_is_cut() -> None:
    made = nodes(*(f"http://n{n}" for n in range(1000)))
    assert len(made.nodes) == MOST_NODES


def source(url: str = "https://entry:4443", *, follow: bool = True) -> Source:
    return Source("home", url, 1.0, "sn17", 600.0, 1.0, follow)


def info(domain: str, port: int = 443) -> GatewayInfo:
    return GatewayInfo(
        node_id=1, domain=domain, ip="", name="", http_port=port, available_tasks=0,
        last_task_acquisition=0, last_update=0,
    )  # fmt: skip


def test_addresses_of_nodes() -> None:
    two = [info("eu.example"), info("us.example", 8443)]
    assert node_urls(source(), two) == ["https://eu.example:443", "https://us.example:8443"]
    assert node_urls(source("http://entry"), two)[0] == "http://eu.example:443"
    assert node_urls(source(), two[:1]) == ["https://entry:4443"]
    assert node_urls(source(follow=False), two) == ["https://entry:4443"]
    bad = [info("a/../b"), info("u:p@host"), info("ok", 0), info("", 443)]
    assert node_urls(source(), bad) == ["https://entry:4443"]


# --- offers, receipts -------------------------------------------------------------------------------


def offer(**changes: object) -> TaskOffer:
    values = {"id": "a-1", "prompt": "a cube", "model": DEFAULT_MODEL, "seed": -5, "assignment_token": "t-1"}
    return TaskOffer.model_validate({**values, **changes})


def test_offers() -> None:
    good = read_offer(offer())
    assert (good.kind, good.prompt, good.seed, good.token) == (TaskKind.TEXT, "a cube", -5, "t-1")
    assert read_offer(offer(prompt=None, image="aGk=")).kind is TaskKind.IMAGE
    for changes in (
        {"model": "404-mesh"},
        {"prompt": None},
        {"image": "aGk="},
        {"id": ""},
        {"id": "x\r\ny"},
        {"assignment_token": "a&b"},
    ):
        with pytest.raises(BadOfferError):
            read_offer(offer(**changes))


@given(seed=st.integers(-(2**31), 2**31 - 1))
def test_signed_seeds_become_what_workers_take_and_stay_different(seed: int) -> None:
    assert 0 <= worker_seed(seed) <= 2**32 - 1
    assert (worker_seed(seed) - seed) % 2**32 == 0


@pytest.mark.parametrize(
    ("status", "sent", "receipt"),
    [
        (410, True, Receipt.OVER),
        (401, True, Receipt.NOT_OURS),
        (400, True, Receipt.REFUSED),
        (413, True, Receipt.REFUSED),
        (429, True, Receipt.BUSY),
        (408, True, Receipt.BUSY),
        (503, True, Receipt.LOST),
        (500, True, Receipt.LOST),
        (502, True, Receipt.LOST),
        (None, True, Receipt.LOST),
        (None, False, Receipt.NOT_SENT),
    ],
)
def test_receipts(status: int | None, sent: bool, receipt: Receipt) -> None:
    reading = read_receipt(GatewayError(status, "why", sent=sent, retry_after=3))
    assert (reading.receipt, reading.retry_after) == (receipt, 3 if status else None)
    assert (receipt in FINAL) == (status in (410, 401, 400, 413))


def test_a_good_answer_is_a_receipt() -> None:
    assert read_receipt(None).receipt is Receipt.STORED


# --- lanes and the gate for clients -----------------------------------------------------------------


def test_the_fast_lane_is_taken_only_where_it_saves_a_deadline() -> None:
    late = Times(exact=20.0, fast=12.0, left=15.0, free=None)
    choice = choose_lane(FastLane.DEADLINE, late, refused=False)
    assert choice.lane is Lane.FAST
    assert "15.0 s" in choice.why
    assert choose_lane(FastLane.OFF, late, refused=False) == LaneChoice(Lane.EXACT)
    assert choose_lane(FastLane.DEADLINE, late, refused=True) == LaneChoice(Lane.EXACT)
    window = Times(exact=20.0, fast=12.0, left=600.0, free=15.0)
    assert choose_lane(FastLane.DEADLINE, window, refused=False).lane is Lane.EXACT
    assert choose_lane(FastLane.THROTTLE, window, refused=False).lane is Lane.FAST


seconds = st.floats(0.0, 1000.0)


@given(
    mode=st.sampled_from(FastLane),
    exact=st.none() | seconds,
    fast=st.none() | seconds,
    left=seconds,
    free=st.none() | seconds,
    refused=st.booleans(),
)
def test_the_fast_lane_never_comes_without_need_and_never_silently(
    mode: FastLane, exact: float | None, fast: float | None, left: float, free: float | None, refused: bool
) -> None:
    choice = choose_lane(mode, Times(exact, fast, left, free), refused=refused)
    assert (choice.lane is Lane.FAST) == bool(choice.why)
    if choice.lane is Lane.FAST:
        assert mode is not FastLane.OFF
        assert not refused
        assert exact is not None
        limits = [left] + ([free] if mode is FastLane.THROTTLE and free is not None else [])
        expected = FAST_SHARE * exact if fast is None else fast
        assert any(expected <= limit < exact for limit in limits)


def situation(signal: Signal, **changes: float) -> ClientSituation:
    values = {"generation": 10.0, "left": 100.0, "seeds_left": 1, "worker_free": True, **changes}
    return ClientSituation(signal=signal, **values)  # type: ignore[arg-type]


def test_clients_get_what_passes_and_nothing_that_is_beyond_repair() -> None:
    for signal in (Signal.HEALTHY, Signal.REPAIRED, Signal.SCORE):
        assert choose_for_client(situation(signal)).step is Step.SUBMIT
    for signal in (Signal.FAILS_CHECKS, Signal.UNREPAIRABLE):
        assert choose_for_client(situation(signal)).step is Step.RETRY
        for changes in ({"seeds_left": 0}, {"worker_free": False}, {"left": 9.0}):
            last = choose_for_client(situation(signal, **changes)).step
            assert last is (Step.SUBMIT if signal is Signal.FAILS_CHECKS else Step.SKIP)


# --- all doors together, over time ------------------------------------------------------------------

GENERATION = 10.0


class Fleet:
    """Workers of which each call or task takes one for a while; validators answer as a script says."""

    def __init__(self, workers: int, validators: int, weights: dict[str, float]) -> None:
        self.scheduler = Scheduler(Timing(), Random(1), "miner")
        self.scheduler.sync(
            START,
            [
                Neuron(uid=n, hotkey=f"v{n}", ip="10.0.0.1", port=1, serving=True, stake=5000.0)
                for n in range(validators)
            ],
        )
        self.nodes = Nodes({"home": 1.0, "away": 1.0}, Random(2))
        self.nodes.sync(START, "home", ["http://a"])
        self.nodes.sync(START, "away", ["http://b"])
        self.doors = Doors(self.scheduler, self.nodes, Sharing(weights))
        self.busy_until = [START] * workers
        self.now = START
        self.served = Counter[str]()
        self.longest = dict.fromkeys(DOORS, 0.0)
        self.last = dict.fromkeys(DOORS, START)

    def step(self, answers: Callable[[], str], empty: frozenset[str]) -> None:
        """Plan once, let every call end at once, and go on to the next moment."""
        free = [FreeWorker(str(n), until) for n, until in enumerate(self.busy_until) if until <= self.now]
        plan = self.doors.plan(self.now, free, horizon=GENERATION, validators=True)
        for pull in plan.pulls:
            answer = answers()
            if answer == "task":
                self._serve("validators", [pull.worker])
                self.scheduler.on_task(self.now, pull.hotkey, "t")
                self.scheduler.on_finished(self.now, pull.hotkey, self.now + GENERATION + 5.0)
            elif answer == "cooldown":
                self.scheduler.on_cooldown(self.now, pull.hotkey, self.now + GENERATION / 2)
            elif answer == "none":
                self.scheduler.on_no_task(self.now, pull.hotkey)
            else:
                self.scheduler.on_pull_failed(self.now, pull.hotkey)
        for errand in plan.errands:
            node, count = errand.order.node, errand.order.count
            assert len(errand.workers) == count
            came = 0 if node.door in empty else count
            if came:
                self._serve(node.door, [worker.name for worker in errand.workers])
            self.nodes.on_tasks(self.now, node, count, came)
            self.doors.sharing.returned(node.door, count - came)
        self.now += 0.5

    def _serve(self, door: str, workers: list[str]) -> None:
        for worker in workers:
            assert self.busy_until[int(worker)] <= self.now, "a worker with two tasks"
            self.busy_until[int(worker)] = self.now + GENERATION
        self.served[door] += len(workers)
        self.longest[door] = max(self.longest[door], self.now - self.last[door])
        self.last[door] = self.now


@given(
    workers=st.integers(1, 3),
    validators=st.integers(0, 12),
    chosen=st.fixed_dictionaries(
        {"validators": st.floats(0.5, 8.0), "home": st.floats(0.5, 4.0), "away": st.floats(0.5, 4.0)}
    ),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_no_source_starves_whatever_validators_answer(
    workers: int, validators: int, chosen: dict[str, float], data: st.DataObject
) -> None:
    """Validators hand out tasks, send us away for moments, or fail; one gateway always has tasks."""
    fleet = Fleet(workers, validators, chosen)
    kinds = data.draw(st.lists(st.sampled_from(["task", "cooldown", "none", "failed"]), min_size=1))
    turn = iter(range(10**9))
    for _ in range(600):
        fleet.step(lambda: kinds[next(turn) % len(kinds)], frozenset({"away"}))
    # A turn is a generation, or a worker kept for a validator for as long, and a generation.
    turns = most_before("home", chosen) + 1
    assert max(fleet.longest["home"], fleet.now - fleet.last["home"]) <= turns * (2 * GENERATION + 1.0)
    assert fleet.served["away"] == 0


def test_a_validator_whose_cooldown_ends_soon_is_kept_a_worker() -> None:
    fleet = Fleet(1, 1, WEIGHTS)
    # Both have had their turn: neither is behind.
    for _ in range(3):
        fleet.step(lambda: "task", frozenset({"away"}))
    fleet.busy_until = [START]
    lane = fleet.scheduler.lanes["v0"]
    lane.phase, lane.wake_at = Phase.COOLING, fleet.now + 3.0
    accounts = fleet.doors.sharing.accounts
    accounts.update({"validators": 1.0, "home": 2.0})
    before = fleet.served.copy()
    fleet.step(lambda: "task", frozenset({"away"}))
    assert fleet.served == before, "the worker waits for the validator"
    accounts["home"] = 0.5
    fleet.step(lambda: "task", frozenset({"away"}))
    assert fleet.served["home"] == before["home"] + 1, "the gateway was behind its share"
