"""A worker under limits of cgroup v2: its guard acts in time, and without it the OOM killer does.

It needs root and a kernel whose memory controller is on cgroup v2. `make e2e` runs it in a kernel of its own.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from sn17_service.cgroups import MemoryEvents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIMIT_MIB = 400
LEAK = {"leak_mib_per_generation": 40}
# In one process, where a worker that refuses can do nothing but end itself.
ALONE = {"model_process": "off"}
GUARDED = {**ALONE, "guard_cleanup_ratio": "0.5", "guard_refuse_ratio": "0.65"}
NO_KILLS = MemoryEvents(oom=0, oom_kill=0, oom_group_kill=0)


@pytest.mark.parametrize("level", ["own", "parent"])
def test_the_guard_refuses_and_the_worker_ends_itself_before_the_limit(
    level: str, group: Any, new_worker: Any, holder: Any
) -> None:
    own = group.child("worker")
    limited = (own if level == "own" else group).limit(LIMIT_MIB)
    if level == "parent":
        # What a sibling holds counts as well: the limit is reached together.
        holder(group.child("sibling"), 40)
    worker = new_worker(own, LEAK, **GUARDED)
    (listening,) = worker.logged("listening")
    assert listening["memory"] == "cgroup v2"
    assert listening["memory_limit_bytes"] == LIMIT_MIB << 20
    assert listening["memory_level"] == str(limited.folder)
    assert worker.metric("sn17_memory_limit_bytes") == LIMIT_MIB << 20
    done, why = worker.generate(20)
    assert done >= 1
    assert why in ("memory_refused", "draining")
    assert worker.end() == 75
    assert worker.logged("cleaned up")
    assert worker.logged("refuses work")
    assert worker.logged("stopping")[0]["reason"] == "self_recycle"
    assert (own.events, group.events) == (NO_KILLS, NO_KILLS)


def test_what_a_clean_up_frees_lets_the_worker_go_on(group: Any, new_worker: Any) -> None:
    own = group.limit(LIMIT_MIB).child("worker")
    worker = new_worker(own, {**LEAK, "leak_is_cache": True}, **GUARDED)
    assert worker.generate(8) == (8, "")
    cleanups = worker.logged("cleaned up")
    assert cleanups
    assert all(line["ratio"] < line["ratio_before"] for line in cleanups)
    assert not worker.logged("refuses work")
    assert group.events == NO_KILLS


def test_without_the_guard_the_oom_killer_ends_the_worker_and_the_events_count_it(
    group: Any, new_worker: Any, holder: Any
) -> None:
    own = group.limit(LIMIT_MIB).child("worker")
    beside = holder(own, 1)
    # Steps so large that none ends just below the limit, where the group would lose its page cache and crawl:
    # the first is the canary's.
    worker = new_worker(own, {"leak_mib_per_generation": 200}, guard="off", **ALONE)
    _, why = worker.generate(20)
    assert why is None, "it did not answer"
    assert worker.end() == -signal.SIGKILL
    assert beside.alive()
    # The limit that was reached is the parent's; the victim was in the worker's group.
    assert own.events == MemoryEvents(oom=0, oom_kill=1, oom_group_kill=0)
    assert group.events == MemoryEvents(oom=1, oom_kill=1, oom_group_kill=0)


def test_a_model_process_that_is_killed_alone_is_counted_and_the_service_goes_on(
    group: Any, new_worker: Any
) -> None:
    own = group.limit(560).child("worker")
    worker = new_worker(own, {"leak_mib_per_generation": 180}, guard="off")
    assert own.events == NO_KILLS
    for _ in range(4):
        if not own.events.oom_kill:
            worker.generate(1)
    assert own.events.oom_kill >= 1
    assert own.events.oom_group_kill == 0
    assert worker.process.poll() is None
    assert worker.state()


def test_where_the_group_is_killed_together_nothing_in_it_is_left(group: Any, holder: Any) -> None:
    """`memory.oom.group` is what kubelet sets on a container: a child is never killed alone."""
    own = group.limit(64).child("container")
    (own.folder / "memory.oom.group").write_text("1")
    outside, beside = holder(group.child("other"), 1), holder(own, 1)
    holder(own, 100, succeeds=False)
    assert beside.end() == -signal.SIGKILL
    assert outside.alive()
    assert own.events.oom_group_kill == 1
    # The kernel counts a victim that has threads more than once.
    assert own.events.oom_kill >= 2
    assert group.events.oom == 1


def test_a_limit_that_is_set_changed_and_left_is_followed(group: Any, reader: Any) -> None:
    one = group.child("one")
    inner = one.child("inner")
    process = reader(inner)
    assert process.read()[:2] == ["process", None]
    one.limit(200)
    assert process.read()[:2] == ["cgroup v2", 200 << 20]
    group.limit(150)
    assert process.read()[1] == 150 << 20
    two = group.child("two").limit(100)
    (two.folder / "cgroup.procs").write_text(str(process.pid))
    assert process.read()[1::2] == [100 << 20, str(two.folder)]
    inner.remove()
    assert process.read()[1] == 100 << 20


@pytest.mark.parametrize("mounted", [False, True])
def test_a_cgroup_namespace(mounted: bool, group: Any, reader: Any) -> None:
    """With a mount of its own a process sees nothing above its group; without one it sees its parents."""
    own = group.limit(150).child("own").limit(200)
    _, limit, _, level = reader(own, namespace=True, mount=mounted).read()
    assert limit == (200 if mounted else 150) << 20
    assert level == ("/sys/fs/cgroup" if mounted else str(group.folder))


def test_what_is_read_is_what_the_processes_of_the_level_hold(group: Any, reader: Any, holder: Any) -> None:
    own = group.limit(400).child("own")
    process = reader(own)
    before = process.read()[2]
    beside = holder(own, 80)
    assert 80 <= process.read()[2] - before < 90
    os.kill(beside.pid, signal.SIGKILL)
    beside.end()
    assert abs(process.read()[2] - before) < 5
