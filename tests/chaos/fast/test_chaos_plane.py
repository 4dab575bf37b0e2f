"""The operator between an API server, an etcd and a Prometheus that fail: it heals what is ill, and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sn17_chaos.invariants import check
from sn17_chaos.plane_faults import PLANE
from sn17_chaos.plane_world import Mark, PlaneWorld
from sn17_chaos.quick_fleet import SPEC
from sn17_chaos.rig import strike

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PLAN = [
    ["operator killed between two steps"],
    ["operator killed", "conflicts (409)"],
    ["operator killed between two steps"],
    ["Prometheus contradictory", "watches expire (410)"],
    ["API server killed"],
    ["Prometheus gone", "another worker falls ill too"],
    ["etcd killed"],
    ["API server throttles (429)", "worker restarts in the middle of its cure"],
    ["Prometheus empty", "a worker is down"],
    ["two operators at once", "answers of the API server lost"],
    ["Prometheus slow", "watches cut"],
    ["admin token rotated", "API server fails (500)"],
]
"""20 faults."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PlaneWorld]:
    made = PlaneWorld(tmp_path / "run", seed=10)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.usefixtures("control_plane")
def test_what_is_ill_is_recycled_once_whatever_breaks(world: PlaneWorld) -> None:
    done = strike(world, PLANE, PLAN, seed=10)
    assert sum(len(found.history.acts) for found in done) >= len(PLAN) // 2
    assert sum(len(found.history.recycles) for found in done) >= len(PLAN) // 2


@pytest.mark.usefixtures("control_plane")
def test_what_protects_turned_off_is_seen(world: PlaneWorld) -> None:
    """The controls, on the same stack."""
    mark = world.mark()
    assert world.recover(world.now(), 60.0) == ""
    assert check(world.history(mark, world.now(), "")) == []

    # The operator is told of an illness that is not there, by a Prometheus that the harness holds for blind.
    mark = world.mark()
    world.causes.clear()
    world.told_until = world.now() - 60.0
    world.wait("the recycle", lambda: len(world.recycles) > mark.recycles, 60)
    assert found(world, mark) == {"recycled_twice", "acted_on_unknown"}
    world.told_until = None
    assert world.recover(world.now(), 60.0) == ""

    # A budget of four where one is allowed.
    world.fleet.miner(**{**SPEC, "maxUnavailable": 4})
    mark = world.mark()
    for _ in range(2):
        world.fall_ill()
    world.recover(world.now(), 90.0)
    assert found(world, mark) == {"beyond_budget"}

    # No operator at all.
    world.remove_operator("op")
    mark = world.mark()
    unrecovered = world.recover(world.now(), 3.0)
    assert [breach.invariant for breach in check(world.history(mark, world.now(), unrecovered))] == [
        "not_recovered"
    ]


def found(world: PlaneWorld, mark: Mark) -> set[str]:
    return {breach.invariant for breach in check(world.history(mark, world.now(), ""))}
