"""What faults of the local stack are made of: its register, a worker at work, signals."""

from __future__ import annotations

import contextlib
import os
import signal
from random import Random

from sn17_chaos.disks import running
from sn17_chaos.faults import Register
from sn17_chaos.stack_world import StackWorld

STACK: Register[StackWorld] = Register("stack")
BUSY_SECONDS = 15.0


def busy_worker(world: StackWorld, rng: Random) -> str:
    """A worker with a job at work, a random part of it done; any worker when none comes to work."""
    names = world.worker_names()
    rng.shuffle(names)
    part = rng.uniform(0.0, 0.4)
    with contextlib.suppress(TimeoutError):
        found = world.wait(
            "a busy worker",
            lambda: [name for name in names if world.looks[name].job is not None],
            BUSY_SECONDS,
        )
        world.live(part)
        return str(found[0])
    return names[0]


def send(world: StackWorld, name: str, number: signal.Signals) -> int:
    """Send a signal to a process of the stack; its process id, 0 when it does not run."""
    pid = world.pid(name)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pid


def resume_process(pid: int) -> None:
    """Let a stopped process go on, if it is still there."""
    if pid and running(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
