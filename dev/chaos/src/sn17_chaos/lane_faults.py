"""What can be broken around one fleet while the operator's other fleets go on."""

from __future__ import annotations

import contextlib
from random import Random

from sn17_chaos.faults import Register, Undo, ends_by_itself
from sn17_chaos.gateway import PASS, Asked, Verdict, refusal
from sn17_chaos.lane_world import Lane, Series, SeriesRule
from sn17_chaos.plane_world import STALE_SECONDS

LANE: Register[Lane] = Register("lanes")


def _some_time(world: Lane, rng: Random) -> None:
    world.live(rng.uniform(0.0, 4.0))


# --- the API server, about this fleet's objects -------------------------------------------------------


def _api(world: Lane, rng: Random, verdict: Verdict, *, writes: bool = False) -> Undo:
    _some_time(world, rng)
    share = rng.uniform(0.4, 0.9)

    def rule(asked: Asked) -> Verdict:
        return verdict if (asked.writes or not writes) and rng.random() < share else PASS

    world.api_rule = rule

    def undo() -> None:
        world.api_rule = lambda asked: PASS

    return undo


@LANE.add("conflicts (409) about one fleet", seconds=(1.0, 5.0))
def conflicts(world: Lane, rng: Random) -> Undo:
    """Most writes meet a newer version of the object."""
    return _api(world, rng, refusal(409, "Conflict", "the object has been modified"), writes=True)


@LANE.add("throttled (429) about one fleet", seconds=(1.0, 5.0))
def throttled(world: Lane, rng: Random) -> Undo:
    """Most requests are told to come back in a second."""
    return _api(world, rng, refusal(429, "TooManyRequests", "please try again later", **{"Retry-After": "1"}))


@LANE.add("failures (500) about one fleet", seconds=(1.0, 5.0))
def failures(world: Lane, rng: Random) -> Undo:
    """Most requests fail."""
    return _api(world, rng, refusal(500, "InternalError", "etcdserver: request timed out"))


@LANE.add("forbidden (403) about one fleet", seconds=(1.0, 5.0))
def forbidden(world: Lane, rng: Random) -> Undo:
    """Most writes are refused, as while rights are being changed."""
    return _api(world, rng, refusal(403, "Forbidden", "may not patch pods"), writes=True)


@LANE.add("lost answers about one fleet", seconds=(1.0, 5.0))
def lost_answers(world: Lane, rng: Random) -> Undo:
    """Writes are done, but the operator does not hear of it."""
    return _api(world, rng, Verdict(drop="after"), writes=True)


@LANE.add("slow answers about one fleet", seconds=(1.0, 5.0))
def slow_answers(world: Lane, rng: Random) -> Undo:
    """Each answer takes a second or two."""
    return _api(world, rng, Verdict(delay=rng.uniform(0.5, 2.0)))


# --- Prometheus, about this fleet's workers -----------------------------------------------------------


def _series(world: Lane, rng: Random, rule: SeriesRule, fresh: float = 0.0) -> Undo:
    if rng.random() < 0.5:
        _some_time(world, rng)
    world.series_rule = rule
    world.told_until = world.now() + fresh

    def undo() -> None:
        world.series_rule = None
        world.told_until = None

    return undo


@LANE.add("no series of one fleet", seconds=(2.0, 6.0))
def no_series(world: Lane, rng: Random) -> Undo:
    """Its series are missing in every answer."""
    return _series(world, rng, lambda query, own: [])


@LANE.add("stale series of one fleet", seconds=(9.0, 12.0))
def stale_series(world: Lane, rng: Random) -> Undo:
    """Its series stay as they were when the fault began."""
    kept: dict[str, list[Series]] = {}
    return _series(world, rng, kept.setdefault, fresh=STALE_SECONDS + 2.0)


@LANE.add("contradictory series of one fleet", seconds=(2.0, 6.0))
def contradictory_series(world: Lane, rng: Random) -> Undo:
    """Each comes twice; the second says that the worker is full."""

    def double(query: str, own: list[Series]) -> list[Series]:
        twins = [
            {
                **series,
                "metric": {**series["metric"], "replica": "b"},
                "values": [[at, str(float(value) * 3)] for at, value in series["values"]],
            }
            for series in own
            if "values" in series
        ]
        return own + twins

    return _series(world, rng, double)


@LANE.add("NaN series of one fleet", seconds=(2.0, 6.0))
def nan_series(world: Lane, rng: Random) -> Undo:
    """Every value is NaN."""

    def nothing(query: str, own: list[Series]) -> list[Series]:
        return [
            {**series, "values": [[at, "NaN"] for at, _ in series["values"]]}
            if "values" in series
            else series
            for series in own
        ]

    return _series(world, rng, nothing)


# --- its workers --------------------------------------------------------------------------------------


@LANE.add("a worker restarts in mid-cure")
def worker_restarts(world: Lane, rng: Random) -> Undo:
    """The unhealthy worker ends by itself (OOM, crash) at a random step."""
    _some_time(world, rng)
    for name in world.unhealthy():
        world.fleet.workers[name].restart()
    return ends_by_itself


@LANE.add("a well worker restarts meanwhile")
def well_worker_restarts(world: Lane, rng: Random) -> Undo:
    """Another worker crashes during the recycle; nothing may be done to its new life."""
    _some_time(world, rng)
    well = [name for name in world.fleet.workers if name not in world.unhealthy()]
    world.fleet.workers[rng.choice(well)].restart()
    return ends_by_itself


@LANE.add("a second worker falls ill")
def second_illness(world: Lane, rng: Random) -> Undo:
    """Two at once, and a budget of one."""
    world.live(rng.uniform(0.0, 3.0))
    world.make_unhealthy()
    return ends_by_itself


@LANE.add("a worker is not Ready", seconds=(2.0, 6.0))
def worker_down(world: Lane, rng: Random) -> Undo:
    """Another worker answers nothing and eats the budget."""
    name = rng.choice([name for name in world.fleet.workers if name not in world.unhealthy()])
    worker = world.fleet.workers[name]
    worker.answers = False
    world.fleet.report(name, ready=False)

    def back() -> None:
        worker.answers = True
        if name in world.fleet.workers:
            world.fleet.report(name)

    return back


@LANE.add("a pod is deleted in mid-cure")
def pod_deleted(world: Lane, rng: Random) -> Undo:
    """A person deletes the unhealthy worker's pod; its Deployment makes another."""
    _some_time(world, rng)
    for name in world.unhealthy():
        path = f"/api/v1/namespaces/{world.fleet.namespace}/pods/{name}"
        world.fleet.http.delete(path, params={"gracePeriodSeconds": "0"})
    return ends_by_itself


@LANE.add("the ill worker does not exit", pairs=False)
def stubborn(world: Lane, rng: Random) -> Undo:
    """It says yes to the request and goes on; only an eviction helps."""
    for name in world.unhealthy():
        world.fleet.workers[name].exits = False
    with contextlib.suppress(TimeoutError):
        world.wait("the eviction", lambda: not world.unhealthy(), 90.0)
    return ends_by_itself


@LANE.add("a job that takes its time", seconds=(2.0, 6.0))
def long_job(world: Lane, rng: Random) -> Undo:
    """The unhealthy worker has a job in flight: it is waited for."""
    workers = [world.fleet.workers[name] for name in world.unhealthy()]
    for worker in workers:
        worker.jobs = 1

    def done() -> None:
        for worker in workers:
            worker.jobs = 0

    return done


@LANE.add("admin endpoints of one fleet fail", seconds=(1.0, 5.0))
def admin_fails(world: Lane, rng: Random) -> Undo:
    """Its workers answer the operator's requests with 503."""
    world.refuse_admin = True

    def undo() -> None:
        world.refuse_admin = False

    return undo
