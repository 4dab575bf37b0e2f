"""The operator between an API server, an etcd and a Prometheus that fail: it undoes what is ill, and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sn17_chaos.invariants import check
from sn17_chaos.plane_faults import PLANE
from sn17_chaos.plane_world import PlaneWorld, Position
from sn17_chaos.quick_fleet import SPEC
from sn17_chaos.rig import inject_all

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
    done = inject_all(world, PLANE, PLAN, seed=10)
    assert sum(len(found.history.acts) for found in done) >= len(PLAN) // 2
    assert sum(len(found.history.recycles) for found in done) >= len(PLAN) // 2


@pytest.mark.usefixtures("control_plane")
def test_what_protects_turned_off_is_seen(world: PlaneWorld) -> None:
    """The controls, on the same stack."""
    position = world.position()
    assert world.recover(world.now(), 60.0) == ""
    assert check(world.history(position, world.now(), "")) == []

    # The operator is told of an illness that is not there, by a Prometheus that the harness holds for blind.
    position = world.position()
    world.causes.clear()
    world.told_until = world.now() - 60.0
    world.wait("the recycle", lambda: len(world.recycles) > position.recycles, 60)
    assert found(world, position) == {"recycled_twice", "acted_on_unknown"}
    world.told_until = None
    assert world.recover(world.now(), 60.0) == ""

    # A budget of four where one is allowed.
    world.fleet.miner(**{**SPEC, "maxUnavailable": 4})
    position = world.position()
    for _ in range(2):
        world.make_unhealthy()
    world.recover(world.now(), 90.0)
    assert found(world, position) == {"beyond_budget"}

    # No operator at all.
    world.remove_operator("op")
    position = world.position()
    unrecovered = world.recover(world.now(), 3.0)
    assert [breach.invariant for breach in check(world.history(position, world.now(), unrecovered))] == [
        "not_recovered"
    ]


def found(world: PlaneWorld, position: Position) -> set[str]:
    return {breach.invariant for breach in check(world.history(position, world.now(), ""))}
