"""What can be broken about a worker's model process, which has a life of its own inside the worker's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from random import Random
from typing import Any

from sn17_contract.worker import RecycleHow

from sn17_chaos.faults import CannotInjectError, Undo, ends_by_itself
from sn17_chaos.stack_levers import STACK, busy_worker, resume_process, send
from sn17_chaos.stack_settings import SLOW_SECONDS
from sn17_chaos.stack_world import StackWorld

__all__ = ["STACK"]

SWAP_SECONDS = 4.0
"""Within which a swap on a quick machine has begun, and most are over."""
SWAPS_SEEN_SECONDS = 60.0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def _models(world: StackWorld, name: str) -> list[int]:
    """Process ids of a worker's model processes, the oldest first; they are children of its fork server."""
    with contextlib.suppress(OSError):
        return [model for server in _children(world.pid(name)) for model in _children(server)]
    return []


def _said(world: StackWorld, name: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{world.processes()[name].ready.port}/v1/worker"
    said: dict[str, Any] = world.http.get(url).raise_for_status().json()
    return said


def _swap(world: StackWorld, name: str) -> str:
    """Ask for a swap, as `sn17 recycle` does; the life that is to end."""
    url = f"http://127.0.0.1:{world.processes()[name].ready.ops_port}/admin/v1/recycle"
    token = world.token_file("operator").read_text()

    def asked() -> str:
        life: str = _said(world, name)["life_id"]
        body = {"life_id": life, "how": RecycleHow.SWAP, "reason": "chaos"}
        world.http.post(url, json=body, headers={"authorization": f"Bearer {token}"}).raise_for_status()
        return life

    try:
        return str(world.wait("a swap that is taken", asked, 30.0))
    except TimeoutError as error:
        raise CannotInjectError(str(error)) from error


def _swapped(world: StackWorld, name: str, life: str) -> bool:
    return bool(_said(world, name)["life_id"] != life)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@STACK.add("model process killed", weight=3)
def model_killed(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL of the model process while a job is at work; the worker goes on and runs the job again."""
    for pid in _models(world, busy_worker(world, rng))[:1]:
        _kill(pid)
    return ends_by_itself


@STACK.add("model process paused", seconds=(1.0, 4.0), weight=3)
def model_paused(world: StackWorld, rng: Random) -> Undo:
    """SIGSTOP of the model process, later SIGCONT."""
    name = busy_worker(world, rng)
    world.causes[name, world.looks[name].boot_id] = "model process paused"
    stopped = _models(world, name)[:1]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)

    def resume() -> None:
        for pid in stopped:
            resume_process(pid)

    return resume


@STACK.add("swap", weight=3)
def swap(world: StackWorld, rng: Random) -> Undo:
    """A swap of the model process while jobs come; nothing is broken, and nothing may be lost by it."""
    name = busy_worker(world, rng)
    life = _swap(world, name)
    with contextlib.suppress(TimeoutError):
        world.wait(f"the swap of {name}", lambda: _swapped(world, name, life), SWAPS_SEEN_SECONDS)
    return ends_by_itself


@STACK.add("worker killed in a swap", weight=2)
def worker_killed_in_swap(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL of the whole worker somewhere in a swap."""
    name = busy_worker(world, rng)
    _swap(world, name)
    world.live(rng.uniform(0.0, SWAP_SECONDS))
    send(world, name, signal.SIGKILL)
    return ends_by_itself


@STACK.add("old model process killed in a swap", weight=2)
def old_killed_in_swap(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL of the model process that is being replaced."""
    return _killed_in_swap(world, rng, 0)


@STACK.add("new model process killed in a swap", weight=2)
def new_killed_in_swap(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL of the model process that is being made ready: the swap fails, the old one serves on."""
    return _killed_in_swap(world, rng, 1)


def _killed_in_swap(world: StackWorld, rng: Random, place: int) -> Undo:
    name = busy_worker(world, rng)
    _swap(world, name)
    try:
        both = world.wait("two model processes side by side", lambda: _two(world, name), SWAP_SECONDS, 0.02)
    except TimeoutError as error:
        raise CannotInjectError(str(error)) from error
    world.live(rng.uniform(0.0, 0.5))
    _kill(both[place])
    return ends_by_itself


def _two(world: StackWorld, name: str) -> list[int] | None:
    found = _models(world, name)
    return found if len(found) > 1 else None


@STACK.add("model process leaks memory", pairs=False)
def model_leaks(world: StackWorld, rng: Random) -> Undo:
    """Each generation keeps 70 MiB of 512 MiB in the model process, and in the one after it: the operator
    has it swapped, again and again, until the worker is given back its health."""
    name = rng.choice(world.worker_names())
    healthy = {"slow_seconds": SLOW_SECONDS}
    before = world.looks[name].boot_id
    world.restart_with(name, SN17_FAULTS=json.dumps({**healthy, "leak_mib_per_generation": 70}))
    world.wait("the leaking life", lambda: world.looks[name].boot_id != before, 90.0)
    world.causes[name, world.looks[name].boot_id] = "leak"
    world.wait("a life id", lambda: _said(world, name)["life_id"], 30.0)
    life: str = _said(world, name)["life_id"]
    with contextlib.suppress(TimeoutError):
        world.wait("a swap by the operator", lambda: _swapped(world, name, life), 90.0)
    world.causes[name, world.looks[name].boot_id] = "leak"
    return lambda: world.restart_with(name, SN17_FAULTS=json.dumps(healthy))
