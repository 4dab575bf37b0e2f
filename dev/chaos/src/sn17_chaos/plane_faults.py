"""What can be broken around the operator: API server, etcd and workers, beside itself and Prometheus."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from random import Random

from sn17_chaos.faults import Undo, ends_by_itself
from sn17_chaos.gateway import GONE_EVENT, PASS, Asked, Verdict, refusal
from sn17_chaos.plane_operator_faults import PLANE, some_time
from sn17_chaos.plane_world import PlaneWorld

# --- the API server and etcd ------------------------------------------------------------------------


def _api(world: PlaneWorld, rng: Random, rule: Callable[[Asked], Verdict]) -> Undo:
    some_time(world, rng)
    world.api_rule = rule

    def undo() -> None:
        world.api_rule = lambda asked: PASS

    return undo


@PLANE.add("API server killed", pairs=False)
def api_server_killed(world: PlaneWorld, rng: Random) -> Undo:
    """SIGKILL, and started again."""
    some_time(world, rng)
    world.plane.supervisor.restart("kube-apiserver", kill=True)
    world.plane.wait_ready()
    return ends_by_itself


@PLANE.add("API server paused", seconds=(1.0, 7.0), pairs=False, weight=2)
def api_server_paused(world: PlaneWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT."""
    return _paused(world, rng, "kube-apiserver")


@PLANE.add("etcd killed", pairs=False)
def etcd_killed(world: PlaneWorld, rng: Random) -> Undo:
    """SIGKILL, and started again with its data."""
    some_time(world, rng)
    world.plane.supervisor.restart("etcd", kill=True)
    world.plane.wait_ready()
    return ends_by_itself


@PLANE.add("etcd paused", seconds=(1.0, 7.0), pairs=False, weight=2)
def etcd_paused(world: PlaneWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT."""
    return _paused(world, rng, "etcd")


def _paused(world: PlaneWorld, rng: Random, name: str) -> Undo:
    some_time(world, rng)
    world.plane.supervisor.signal(name, signal.SIGSTOP)
    return lambda: world.plane.supervisor.signal(name, signal.SIGCONT)


@PLANE.add("API server throttles (429)", seconds=(1.0, 4.0), weight=2)
def api_throttles(world: PlaneWorld, rng: Random) -> Undo:
    """Most requests are told to come back in a second."""
    answer = {"Retry-After": "1"}
    throttled = refusal(429, "TooManyRequests", "too many requests, please try again later", **answer)
    share = rng.uniform(0.4, 0.9)
    return _api(world, rng, lambda asked: throttled if rng.random() < share else PASS)


@PLANE.add("API server fails (500)", seconds=(1.0, 4.0), weight=2)
def api_fails(world: PlaneWorld, rng: Random) -> Undo:
    """Most requests fail, as while etcd has no leader."""
    failed = refusal(500, "InternalError", "etcdserver: leader changed")
    share = rng.uniform(0.4, 0.9)
    return _api(world, rng, lambda asked: failed if rng.random() < share else PASS)


@PLANE.add("conflicts (409)", seconds=(1.0, 4.0), weight=2)
def api_conflicts(world: PlaneWorld, rng: Random) -> Undo:
    """Most writes meet a newer version of the object."""
    conflict = refusal(409, "Conflict", "the object has been modified; please apply your changes again")
    share = rng.uniform(0.4, 0.9)
    return _api(world, rng, lambda asked: conflict if asked.writes and rng.random() < share else PASS)


@PLANE.add("answers of the API server lost", seconds=(1.0, 4.0), weight=2)
def api_answers_lost(world: PlaneWorld, rng: Random) -> Undo:
    """Writes are done, but the connection breaks before the operator hears of it."""
    share = rng.uniform(0.3, 0.8)

    def rule(asked: Asked) -> Verdict:
        return Verdict(drop="after") if asked.writes and rng.random() < share else PASS

    return _api(world, rng, rule)


@PLANE.add("API server slow", seconds=(1.0, 4.0), weight=2)
def api_slow(world: PlaneWorld, rng: Random) -> Undo:
    """Every answer takes up to two seconds."""
    return _api(world, rng, lambda asked: Verdict(delay=rng.uniform(0.2, 2.0)))


@PLANE.add("watches expire (410)", seconds=(1.0, 4.0), weight=2)
def watches_gone(world: PlaneWorld, rng: Random) -> Undo:
    """Running watches end with 410, and new ones are refused with it for a while: as an event, or as the
    answer."""
    event = Verdict(status=200, body=json.dumps(GONE_EVENT).encode() + b"\n")
    answer = refusal(410, "Expired", "too old resource version")
    verdict = rng.choice([event, answer])
    undo = _api(world, rng, lambda asked: verdict if asked.watch else PASS)
    world.api.end_watches(gone=True)
    return undo


@PLANE.add("watches cut", seconds=(0.0, 3.0), weight=2)
def watches_cut(world: PlaneWorld, rng: Random) -> Undo:
    """Every watch ends without a word."""
    some_time(world, rng)
    world.api.end_watches(gone=False)
    return ends_by_itself


@PLANE.add("watches silent", seconds=(4.0, 8.0), weight=2)
def watches_silent(world: PlaneWorld, rng: Random) -> Undo:
    """Watches are refused: the operator lives on what it lists."""
    undo = _api(world, rng, lambda asked: Verdict(drop="before") if asked.watch else PASS)
    world.api.end_watches(gone=False)
    return undo


# --- workers, as the operator meets them ------------------------------------------------------------


@PLANE.add("worker restarts in the middle of its cure", weight=2)
def worker_restarts(world: PlaneWorld, rng: Random) -> Undo:
    """The unhealthy worker ends by itself (OOM, crash) at a random step."""
    some_time(world, rng)
    for name in world.unhealthy():
        world.fleet.workers[name].restart()
    return ends_by_itself


@PLANE.add("another worker falls ill too", weight=2)
def second_illness(world: PlaneWorld, rng: Random) -> Undo:
    """Two at once, and a budget of one."""
    world.live(rng.uniform(0.0, 2.0))
    world.make_unhealthy()
    return ends_by_itself


@PLANE.add("a worker is down", seconds=(1.0, 4.0), weight=2)
def worker_down(world: PlaneWorld, rng: Random) -> Undo:
    """Another worker is not Ready and answers nothing: it eats the budget."""
    well = [n for n in world.fleet.workers if n not in world.unhealthy()]
    name = rng.choice(well)
    worker = world.fleet.workers[name]
    worker.answers = False
    world.fleet.report(name, ready=False)

    def back() -> None:
        worker.answers = True
        if name in world.fleet.workers:
            world.fleet.report(name)

    return back


@PLANE.add("worker does not exit", pairs=False)
def worker_stubborn(world: PlaneWorld, rng: Random) -> Undo:
    """It says yes to the request and goes on; only an eviction helps."""
    for name in world.unhealthy():
        world.fleet.workers[name].exits = False
    with contextlib.suppress(TimeoutError):
        world.wait("the eviction", lambda: not world.unhealthy(), 60.0)
    return ends_by_itself


@PLANE.add("admin endpoints fail", seconds=(1.0, 4.0), weight=2)
def admin_fails(world: PlaneWorld, rng: Random) -> Undo:
    """Workers answer the operator's requests with 503."""
    world.refuse_admin = True

    def undo() -> None:
        world.refuse_admin = False

    return undo
