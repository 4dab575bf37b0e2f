"""What can be broken around the operator."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from random import Random
from typing import Any

from sn17_chaos.faults import Register, Undo, ends_by_itself
from sn17_chaos.gateway import PASS, Asked, Verdict
from sn17_chaos.plane_world import STALE_SECONDS, PlaneWorld

PLANE: Register[PlaneWorld] = Register("plane")
SKEW_SECONDS = 30.0


def some_time(world: PlaneWorld, rng: Random) -> None:
    """Somewhere between the fault and the recovery: the fault hits any step."""
    world.live(rng.uniform(0.0, 4.0))


# --- the operator itself ----------------------------------------------------------------------------


@PLANE.add("operator killed")
def operator_killed(world: PlaneWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment; its Deployment starts it again."""
    some_time(world, rng)
    world.signal("op", signal.SIGKILL)
    return ends_by_itself


@PLANE.add("operator killed between two steps", pairs=False)
def operator_killed_at_a_write(world: PlaneWorld, rng: Random) -> Undo:
    """SIGKILL at the n-th write about a pod: before the API server sees it, or before the operator hears that
    it was done."""
    left, side = rng.randrange(4), rng.choice(["before", "after"])
    injected: list[str] = []

    def on_write(asked: Asked, when: str) -> Verdict | None:
        nonlocal left
        if "/pods/" not in asked.path or when != side or injected:
            return None
        if left:
            left -= 1
            return None
        injected.append(asked.path)
        world.say("op", f"killed {when} {asked.method} {asked.path.rsplit('/', 1)[-1]}")
        world.signal("op", signal.SIGKILL)
        return Verdict(drop=side)

    world.on_write = on_write
    with contextlib.suppress(TimeoutError):
        world.wait("the kill", lambda: injected, 20.0)
    world.on_write = lambda asked, when: None
    return ends_by_itself


@PLANE.add("operator stopped politely")
def operator_terminated(world: PlaneWorld, rng: Random) -> Undo:
    """SIGTERM: a rollout of the operator."""
    some_time(world, rng)
    world.signal("op", signal.SIGTERM)
    return ends_by_itself


@PLANE.add("operator paused", seconds=(1.0, 9.0))
def operator_paused(world: PlaneWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT: its Lease may have run out meanwhile."""
    some_time(world, rng)
    world.signal("op", signal.SIGSTOP)

    def wake() -> None:
        world.signal("op", signal.SIGCONT)

    return wake


@PLANE.add("two operators at once", seconds=(1.0, 5.0))
def two_operators(world: PlaneWorld, rng: Random) -> Undo:
    """A second one with another name works on the same resource."""
    world.add_operator("second")
    some_time(world, rng)
    return lambda: world.remove_operator("second")


@PLANE.add("leader killed, another takes over", seconds=(8.0, 12.0), pairs=False)
def leader_killed(world: PlaneWorld, rng: Random) -> Undo:
    """The one that holds the Lease is killed while a second one waits for it, and is away for a while."""
    world.add_operator("second")
    some_time(world, rng)
    world.remove_operator("op")

    def back() -> None:
        world.add_operator("op")
        world.remove_operator("second")

    return back


@PLANE.add("leader paused, another takes over", seconds=(9.0, 14.0), pairs=False)
def leader_paused(world: PlaneWorld, rng: Random) -> Undo:
    """The leader stands still for longer than its Lease and wakes up believing that it leads."""
    world.add_operator("second")
    some_time(world, rng)
    world.signal("op", signal.SIGSTOP)

    def wake() -> None:
        world.signal("op", signal.SIGCONT)
        world.live(2.0)
        world.remove_operator("second")

    return wake


@PLANE.add("operator's clock steps by 30 s", seconds=(3.0, 6.0))
def operator_clock(world: PlaneWorld, rng: Random) -> Undo:
    """Ahead or behind, and later back: no sample is of its present any more."""
    some_time(world, rng)

    def step(seconds: float) -> None:
        world.clock_file("op").write_text(str(seconds))

    step(rng.choice([-1, 1]) * SKEW_SECONDS)
    return lambda: step(0.0)


@PLANE.add("admin token rotated", seconds=(1.0, 5.0), weight=2)
def token_rotated(world: PlaneWorld, rng: Random) -> Undo:
    """The workers have the new token some seconds before the operator."""
    some_time(world, rng)
    token = world.rotate_token()

    def learn() -> None:
        for identity in world.operators:
            (world.folder / identity / "token").write_text(token)

    return learn


# --- Prometheus -------------------------------------------------------------------------------------


def _answers(world: PlaneWorld, rng: Random, verdict: Callable[[Asked], Verdict], fresh: float = 0.0) -> Undo:
    """Let Prometheus answer so. What was told before it counts for ``fresh`` seconds more."""
    if rng.random() < 0.5:
        # Half of the time the illness is seen before the blindness, half of the time only afterwards.
        some_time(world, rng)
    at = world.now()
    world.metrics.rule = verdict
    world.told_until = at + fresh

    def undo() -> None:
        world.metrics.rule = lambda asked: PASS
        world.told_until = None

    return undo


def _series(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[bytes], bytes]:
    def changed(body: bytes) -> bytes:
        with contextlib.suppress(ValueError, KeyError):
            answer = json.loads(body)
            answer["data"]["result"] = change(answer["data"]["result"])
            return json.dumps(answer).encode()
        return body

    return changed


@PLANE.add("Prometheus gone", seconds=(1.0, 4.0))
def prometheus_gone(world: PlaneWorld, rng: Random) -> Undo:
    """The process is killed and started again later."""
    undo = _answers(world, rng, lambda asked: Verdict(drop="before"))
    world.prometheus.stop()

    def back() -> None:
        world.prometheus.start()
        undo()

    return back


@PLANE.add("Prometheus slow", seconds=(3.0, 6.0), weight=2)
def prometheus_slow(world: PlaneWorld, rng: Random) -> Undo:
    """It answers after the time that a query is given."""
    return _answers(world, rng, lambda asked: Verdict(delay=3.0))


@PLANE.add("Prometheus refuses", seconds=(1.0, 4.0), weight=2)
def prometheus_refuses(world: PlaneWorld, rng: Random) -> Undo:
    """503, 422, a page that is no JSON, or an answer with warnings."""
    error = {"status": "error", "errorType": "execution", "error": "query timed out"}
    answers = [
        Verdict(status=503, body=json.dumps(error).encode()),
        Verdict(status=422, body=json.dumps(error).encode()),
        Verdict(status=200, body=b"<html>sign in</html>"),
        Verdict(change=lambda body: body[: len(body) // 2]),
        Verdict(change=lambda body: body.replace(b'{"status"', b'{"warnings":["partial"],"status"', 1)),
    ]
    verdict = rng.choice(answers)
    return _answers(world, rng, lambda asked: verdict)


@PLANE.add("Prometheus empty", seconds=(1.0, 4.0), weight=2)
def prometheus_empty(world: PlaneWorld, rng: Random) -> Undo:
    """It answers every query with no series, as after the loss of its data."""
    return _answers(world, rng, lambda asked: Verdict(change=_series(lambda result: [])))


@PLANE.add("Prometheus stale", seconds=(8.0, 12.0))
def prometheus_stale(world: PlaneWorld, rng: Random) -> Undo:
    """Every query is answered as it was when the fault began."""
    kept: dict[str, bytes] = {}

    def verdict(asked: Asked) -> Verdict:
        query = asked.query.get("query", "")
        if query in kept:
            body = kept[query]
            return Verdict(status=200, body=body, headers={"Content-Type": "application/json"})

        def keep(body: bytes) -> bytes:
            kept[query] = body
            return body

        return Verdict(change=keep)

    return _answers(world, rng, verdict, fresh=STALE_SECONDS + 2.0)


@PLANE.add("Prometheus contradictory", seconds=(2.0, 5.0), weight=2)
def prometheus_contradictory(world: PlaneWorld, rng: Random) -> Undo:
    """Every series comes twice with different values; one of the two says that all workers are full."""

    def double(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        more = []
        for series in result:
            values = [[at, str(float(value) * 3)] for at, value in series.get("values", [])]
            twin = {**series, "metric": {**series["metric"], "replica": "b"}}
            more += [series, {**twin, "values": values} if values else twin]
        return more

    return _answers(world, rng, lambda asked: Verdict(change=_series(double)))


@PLANE.add("Prometheus counts nothing", seconds=(2.0, 5.0), weight=2)
def prometheus_nan(world: PlaneWorld, rng: Random) -> Undo:
    """Every value is NaN."""

    def nothing(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**series, "values": [[at, "NaN"] for at, _ in series["values"]]}
            if "values" in series
            else series
            for series in result
        ]

    return _answers(world, rng, lambda asked: Verdict(change=_series(nothing)))


@PLANE.add("scrape gone", seconds=(8.0, 12.0))
def scrape_gone(world: PlaneWorld, rng: Random) -> Undo:
    """Prometheus forgets its targets: samples stop, and are stale soon."""
    some_time(world, rng)
    world.prometheus.scrape([])
    world.told_until = world.now() + STALE_SECONDS

    def undo() -> None:
        world.prometheus.scrape(world.fleet.targets())
        world.told_until = None

    return undo
