"""What can be broken in the local stack."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
from collections.abc import Mapping
from random import Random

from sn17_chaos.disks import allow_writes, forbid_writes
from sn17_chaos.faults import CannotInjectError, Undo, ends_by_itself
from sn17_chaos.stack_levers import busy_worker, resume_process, send
from sn17_chaos.stack_model_faults import STACK
from sn17_chaos.stack_settings import SLOW_SECONDS
from sn17_chaos.stack_world import StackWorld

__all__ = ["STACK"]

NEW_LIFE_SECONDS = 90.0
SKEW_SECONDS = 30.0


# --- workers ----------------------------------------------------------------------------------------


@STACK.add("worker killed in mid-generation")
def worker_killed(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL while a job is at work."""
    send(world, busy_worker(world, rng), signal.SIGKILL)
    return ends_by_itself


@STACK.add("all workers killed")
def workers_killed(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL of every worker at once."""
    busy_worker(world, rng)
    for name in world.worker_names():
        send(world, name, signal.SIGKILL)
    return ends_by_itself


@STACK.add("worker paused", seconds=(1.0, 4.0), weight=3)
def worker_paused(world: StackWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT: a worker that is starved for some seconds."""
    name = busy_worker(world, rng)
    world.causes[name, world.looks[name].boot_id] = "paused"
    pid = send(world, name, signal.SIGSTOP)
    return lambda: resume_process(pid)


@STACK.add("worker hung for good", pairs=False)
def worker_hung(world: StackWorld, rng: Random) -> Undo:
    """SIGSTOP without an end: only the operator can help."""
    name = busy_worker(world, rng)
    world.causes[name, world.looks[name].boot_id] = "hung"
    send(world, name, signal.SIGSTOP)
    return ends_by_itself


def _faulty_life(world: StackWorld, name: str, cause: str, faults: Mapping[str, object]) -> str:
    """Give a worker an incarnation with these faults; the one after it is well again. Its boot id.

    It is one process: a model process of its own would be given the same faults again, and only the end of
    the whole ends them.
    """
    before = world.looks[name].boot_id
    healthy = {"slow_seconds": SLOW_SECONDS}
    faulty = json.dumps({**healthy, **faults})
    world.restart_with(name, SN17_FAULTS=faulty, SN17_MODEL_PROCESS="off")

    world.wait(f"the faulty life of {name}", lambda: world.looks[name].boot_id != before, NEW_LIFE_SECONDS)
    boot_id = world.looks[name].boot_id
    world.causes[name, boot_id] = cause
    world.next_life(name, SN17_FAULTS=json.dumps(healthy), SN17_MODEL_PROCESS="on")
    return boot_id


def _until_over(world: StackWorld, name: str, boot_id: str, seconds: float = 90.0) -> None:
    """Wait until the incarnation has been ended: by the operator, or by itself."""
    with contextlib.suppress(TimeoutError):
        world.wait(f"the end of {name}'s faulty life", lambda: world.looks[name].boot_id != boot_id, seconds)


@STACK.add("generation never ends", pairs=False)
def generation_hangs(world: StackWorld, rng: Random) -> Undo:
    """The generating thread hangs in its first task; the ports answer."""
    name = rng.choice(world.worker_names())
    boot_id = _faulty_life(world, name, "hang", {"hang_after": 0})
    _until_over(world, name, boot_id)
    return ends_by_itself


@STACK.add("worker crashes in a generation")
def worker_crashes(world: StackWorld, rng: Random) -> Undo:
    """The process kills itself at the start of its first task."""
    name = rng.choice(world.worker_names())
    _until_over(world, name, _faulty_life(world, name, "crash", {"crash_after": 0}), 30.0)
    return ends_by_itself


@STACK.add("fatal device error", pairs=False)
def device_error(world: StackWorld, rng: Random) -> Undo:
    """Every task of this incarnation ends in a fatal error of the device."""
    name = rng.choice(world.worker_names())
    _until_over(world, name, _faulty_life(world, name, "device", {"gpu_error_after": 0}))
    return ends_by_itself


@STACK.add("worker leaks memory", pairs=False)
def worker_leaks(world: StackWorld, rng: Random) -> Undo:
    """Each generation keeps 110 MiB of 512 MiB for good."""
    name = rng.choice(world.worker_names())
    _until_over(world, name, _faulty_life(world, name, "leak", {"leak_mib_per_generation": 110}))
    return ends_by_itself


@STACK.add("worker loses gaussians", pairs=False)
def worker_loses_gaussians(world: StackWorld, rng: Random) -> Undo:
    """Assets shrink to an eighth, the canary with them."""
    name = rng.choice(world.worker_names())
    faults = {"gaussian_decay": True, "gaussian_decay_from": 0.0, "gaussian_decay_to": 0.05}
    _until_over(world, name, _faulty_life(world, name, "gaussians", faults))
    return ends_by_itself


@STACK.add("answers end half way", seconds=(4.0, 8.0))
def half_answers(world: StackWorld, rng: Random) -> Undo:
    """Every second answer of a worker breaks off in the middle."""
    name = rng.choice(world.worker_names())
    _faulty_life(world, name, "half answers", {"half_answer_every": 2})
    return lambda: world.restart_with(name)


@STACK.add("answers are garbage", seconds=(4.0, 8.0))
def garbage_answers(world: StackWorld, rng: Random) -> Undo:
    """Every second answer of a worker holds other bytes than it should."""
    name = rng.choice(world.worker_names())
    _faulty_life(world, name, "garbage", {"garbage_every": 2})
    return lambda: world.restart_with(name)


@STACK.add("no structure found", seconds=(4.0, 8.0))
def empty_structures(world: StackWorld, rng: Random) -> Undo:
    """Every second task of a worker ends without a structure."""
    name = rng.choice(world.worker_names())
    _faulty_life(world, name, "empty", {"empty_every": 2})
    return lambda: world.restart_with(name)


# --- miner, fixer, validators, operator -------------------------------------------------------------


def _paused(world: StackWorld, rng: Random, name: str, within: float) -> Undo:
    """SIGSTOP at a random moment of the next ``within`` seconds, later SIGCONT."""
    world.live(rng.uniform(0.0, within))
    pid = send(world, name, signal.SIGSTOP)
    return lambda: resume_process(pid)


@STACK.add("miner killed")
def miner_killed(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment; it comes back with its state folder."""
    world.live(rng.uniform(0.0, 1.5))
    send(world, "miner", signal.SIGKILL)
    return ends_by_itself


@STACK.add("miner stopped politely")
def miner_terminated(world: StackWorld, rng: Random) -> Undo:
    """SIGTERM: what a rollout or a drained node does."""
    world.live(rng.uniform(0.0, 1.5))
    send(world, "miner", signal.SIGTERM)
    return ends_by_itself


@STACK.add("miner paused", seconds=(1.0, 5.0), weight=3)
def miner_paused(world: StackWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT."""
    return _paused(world, rng, "miner", 1.5)


@STACK.add("fixer killed")
def fixer_killed(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment."""
    world.live(rng.uniform(0.0, 1.5))
    send(world, "fixer", signal.SIGKILL)
    return ends_by_itself


@STACK.add("fixer gone", seconds=(3.0, 7.0))
def fixer_gone(world: StackWorld, rng: Random) -> Undo:
    """It ends and fails at each start, as with a broken image."""
    world.live(rng.uniform(0.0, 1.0))
    world.restart_with("fixer", SN17_LOG_LEVEL="none of them")
    return lambda: world.next_life("fixer", SN17_LOG_LEVEL="INFO")


@STACK.add("fixer hung", seconds=(2.0, 6.0), weight=3)
def fixer_hung(world: StackWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT."""
    return _paused(world, rng, "fixer", 1.0)


@STACK.add("validator restarted", weight=3)
def validator_restarted(world: StackWorld, rng: Random) -> Undo:
    """Gone for a while; comes back with the state it saved last, and forgets what was since."""
    index, seconds = rng.randrange(world.validators), rng.uniform(0.3, 3.0)
    world.live(rng.uniform(0.0, 1.0))
    ledger = world.stack.devnet_info().ledger_url
    url = ledger.replace("/ledger", f"/validators/{index}/restart")
    world.http.post(url, json={"seconds": seconds}).raise_for_status()
    return ends_by_itself


def _validator_fault(world: StackWorld, rules: list[dict[str, object]]) -> Undo:
    url = world.stack.devnet_info().faults_url

    def put(faults: list[dict[str, object]]) -> None:
        world.http.put(url, json=faults).raise_for_status()

    put(rules)
    return lambda: put([])


@STACK.add("validator's answers lost", seconds=(2.0, 5.0), weight=3)
def answers_lost(world: StackWorld, rng: Random) -> Undo:
    """It does its part, but the answer never arrives: connection reset, or cut in the middle."""
    kind = rng.choice(["reset", "garbage"])
    return _validator_fault(world, [{"kind": kind, "when": "after", "probability": 0.6}])


@STACK.add("validator throws errors", seconds=(2.0, 5.0), weight=3)
def validator_errors(world: StackWorld, rng: Random) -> Undo:
    """408, 500 or 503 before it looks at the call, or a connection reset."""
    rule: dict[str, object] = {"kind": "status", "status": rng.choice([408, 500, 503]), "probability": 0.7}
    return _validator_fault(world, [rule, {"kind": "reset", "probability": 0.5}])


@STACK.add("validator slow", seconds=(3.0, 6.0), weight=3)
def validator_slow(world: StackWorld, rng: Random) -> Undo:
    """Every answer takes seconds longer."""
    return _validator_fault(world, [{"kind": "slow", "seconds": rng.uniform(1.0, 4.0)}])


@STACK.add("validation does not answer", seconds=(2.0, 5.0), weight=3)
def validation_away(world: StackWorld, rng: Random) -> Undo:
    """The validator cannot say how good a result is."""
    return _validator_fault(world, [{"kind": "unvalidated", "probability": rng.uniform(0.5, 1.0)}])


@STACK.add("operator killed (local)", pairs=False)
def operator_killed(world: StackWorld, rng: Random) -> Undo:
    """The local operator ends and a new one starts that knows nothing, while a worker leaks."""
    name = rng.choice(world.worker_names())
    boot_id = _faulty_life(world, name, "leak", {"leak_mib_per_generation": 110})
    with contextlib.suppress(TimeoutError):
        world.wait("the cordon", lambda: world.looks[name].state == "draining", 60.0)
    world.live(rng.uniform(0.0, 2.0))
    world.call(world.kill_operator)
    world.live(rng.uniform(0.0, 1.0))
    world.call(world.start_operator)
    _until_over(world, name, boot_id)
    return ends_by_itself


@STACK.add("admin token rotated", seconds=(1.0, 4.0), weight=3)
def token_rotated(world: StackWorld, rng: Random) -> Undo:
    """A new token, known to the operator and to the processes at different times."""
    names = ["operator", "fixer", "miner", *world.worker_names()]
    token = secrets.token_urlsafe(32)
    first = rng.sample(names, rng.randrange(1, len(names)))
    for name in first:
        world.token_file(name).write_text(token)

    def finish() -> None:
        for name in names:
            world.token_file(name).write_text(token)

    return finish


# --- the gateway ------------------------------------------------------------------------------------


@STACK.add("gateway killed", weight=2)
def gateway_killed(world: StackWorld, rng: Random) -> Undo:
    """SIGKILL at a random moment, while a client waits for an asset; it comes back with its database."""
    world.live(rng.uniform(0.0, 1.5))
    send(world, "gateway", signal.SIGKILL)
    return ends_by_itself


@STACK.add("gateway paused", seconds=(1.0, 5.0), weight=2)
def gateway_paused(world: StackWorld, rng: Random) -> Undo:
    """SIGSTOP, later SIGCONT."""
    return _paused(world, rng, "gateway", 1.5)


@STACK.add("disk full under gateway", seconds=(1.0, 5.0), weight=2)
def gateway_disk_full(world: StackWorld, rng: Random) -> Undo:
    """No byte is free where the gateway keeps its database and the results."""
    world.live(rng.uniform(0.0, 1.0))
    return _full(world, "gateway")


# --- disks and clocks -------------------------------------------------------------------------------


def _full(world: StackWorld, name: str) -> Undo:
    if world.no_disks:
        raise CannotInjectError(world.no_disks)
    disk = world.disks[name]
    disk.fill()
    return disk.free


@STACK.add("disk full under journal", seconds=(1.0, 5.0), weight=3)
def journal_disk_full(world: StackWorld, rng: Random) -> Undo:
    """No byte is free where the miner keeps its journal and its payloads."""
    world.live(rng.uniform(0.0, 1.0))
    return _full(world, "miner")


@STACK.add("disk full under spool", seconds=(1.0, 5.0), weight=3)
def spool_disk_full(world: StackWorld, rng: Random) -> Undo:
    """No byte is free where a worker keeps its results."""
    name = busy_worker(world, rng)
    world.causes[name, world.looks[name].boot_id] = "disk"
    return _full(world, name)


@STACK.add("writes refused", seconds=(1.0, 5.0), weight=3)
def writes_refused(world: StackWorld, rng: Random) -> Undo:
    """Every write of the miner or of a worker to a file fails, its log included (a quota used up)."""
    name = rng.choice(["miner", *world.worker_names()])
    pid = world.pid(name)
    if pid:
        forbid_writes(pid)
    return lambda: allow_writes(pid) if pid else None


def _skewed(world: StackWorld, name: str, seconds: float) -> Undo:
    def step(offset: float) -> None:
        world.clock_file(name).write_text(str(offset))

    step(seconds)
    return lambda: step(0.0)


@STACK.add("miner's clock steps by 30 s", seconds=(3.0, 8.0), weight=3)
def miner_clock(world: StackWorld, rng: Random) -> Undo:
    """Ahead or behind, and later back."""
    return _skewed(world, "miner", rng.choice([-1, 1]) * SKEW_SECONDS)


@STACK.add("validators' clock steps by 30 s", seconds=(3.0, 8.0), pairs=False)
def validators_clock(world: StackWorld, rng: Random) -> Undo:
    """Ahead or behind, and later back."""
    return _skewed(world, "validators", rng.choice([-1, 1]) * SKEW_SECONDS)


@STACK.add("worker's clock steps by 30 s", seconds=(3.0, 8.0), weight=3)
def worker_clock(world: StackWorld, rng: Random) -> Undo:
    """Ahead or behind, and later back."""
    return _skewed(world, rng.choice(world.worker_names()), rng.choice([-1, 1]) * SKEW_SECONDS)
