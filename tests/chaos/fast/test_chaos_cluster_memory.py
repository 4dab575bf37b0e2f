"""What the cluster's world reads of control groups and of kubelet's word, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from sn17_chaos.cluster import Deck
from sn17_chaos.cluster_memory import MemoryWatch
from sn17_chaos.faults import Fault, ends_by_itself
from sn17_chaos.history import History
from sn17_chaos.invariants import check

GIB = 1 << 30
POD = {"metadata": {"name": "trellis-a", "uid": "1234"}, "status": {}}


def container(node: Path, name: str, share: float, kills: int = 0) -> Path:
    folder = node / "kubepods/burstable/pod1234" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.stat").write_text(f"total_rss {int(share * GIB)}\ntotal_cache {GIB}\ntotal_shmem 0\n")
    (folder / "memory.usage_in_bytes").write_text(str(GIB))
    (folder / "memory.limit_in_bytes").write_text(str(GIB))
    (folder / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")
    return folder


def ended(life: str, at: float, reason: str = "OOMKilled") -> dict[str, Any]:
    finished = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    last = {"reason": reason, "finishedAt": finished, "containerID": f"containerd://{life}", "exitCode": 137}
    return {**POD, "status": {"containerStatuses": [{"state": {}, "lastState": {"terminated": last}}]}}


def judged(watch: MemoryWatch) -> list[str]:
    kills = watch.kills
    history = History(oom_kills=kills, memory=watch.before(kills), cordon_threshold=0.6, sight=7.0)
    return [breach.invariant for breach in check(history)]


def test_a_kill_that_kubelet_tells_of_is_held_against_the_samples_of_that_life(tmp_path: Path) -> None:
    watch = MemoryWatch()
    for second in range(20):
        container(tmp_path, "life-1", 0.2 + 0.04 * second)
        container(tmp_path, "life-2", 0.1)
        watch.look([tmp_path], [POD], 1000.0 + second)
    watch.note([ended("life-2", 1019.0, "Completed")])
    assert watch.kills == []
    # kubelet cuts the fraction off; the life was still seen after that.
    watch.note([ended("life-1", 1018.0)])
    watch.note([ended("life-1", 1018.0)])
    assert [(kill.worker, kill.incarnation, kill.at) for kill in watch.kills] == [
        ("trellis-a", "life-1", 1019.0)
    ]
    assert {sample.incarnation for sample in watch.before(watch.kills)} == {"life-1"}
    assert judged(watch) == ["killed_in_sight"]


def test_the_kernels_count_finds_a_killed_process_in_a_container_that_goes_on(tmp_path: Path) -> None:
    watch = MemoryWatch()
    for second, kills in enumerate((0, 0, 1, 1, 2)):
        container(tmp_path, "life-1", 0.5, kills)
        watch.look([tmp_path], [POD], 1000.0 + second)
    watch.note([ended("life-1", 1004.0)])
    assert [kill.at for kill in watch.kills] == [1002.0, 1004.0]
    assert judged(watch) == []


def test_a_node_with_cgroup_v2_is_read_as_well(tmp_path: Path) -> None:
    watch = MemoryWatch()
    folder = tmp_path / "kubepods/burstable/pod1234/life-1"
    folder.mkdir(parents=True)
    (folder / "memory.current").write_text(str(GIB))
    (folder / "memory.max").write_text(str(GIB))
    for second in range(20):
        (folder / "memory.stat").write_text(f"anon {int((0.2 + 0.04 * second) * GIB)}\n")
        (folder / "memory.events").write_text(f"oom {second // 19}\noom_kill {second // 19}\n")
        watch.look([tmp_path], [POD], 1000.0 + second)
    assert [kill.at for kill in watch.kills] == [1019.0]
    assert judged(watch) == ["killed_in_sight"]


def test_what_a_killed_container_no_longer_holds_is_not_how_it_stood_before(tmp_path: Path) -> None:
    watch = MemoryWatch()
    for second in range(20):
        container(tmp_path, "life-1", 0.2 + 0.04 * second)
        watch.look([tmp_path], [POD], 1000.0 + second)
    # The kernel has killed it and taken its memory; kubelet has not yet removed the control group.
    container(tmp_path, "life-1", 0.0, kills=1)
    watch.look([tmp_path], [POD], 1020.0)
    assert [kill.at for kill in watch.kills] == [1020.0]
    assert judged(watch) == ["killed_in_sight"]


def test_a_kill_of_a_life_that_nobody_saw_is_a_breach() -> None:
    watch = MemoryWatch()
    watch.note([ended("life-0", 1000.0)])
    assert judged(watch) == ["killed_in_sight"]


def test_a_container_that_goes_while_it_is_looked_at_is_no_error(tmp_path: Path) -> None:
    watch = MemoryWatch()
    folder = container(tmp_path, "life-1", 0.5)
    (folder / "memory.stat").unlink()
    watch.look([tmp_path], [POD], 1000.0)
    (container(tmp_path, "life-1", 0.5) / "memory.oom_control").unlink()
    watch.look([tmp_path], [POD], 1001.0)
    assert watch.kills == []


def test_faults_that_struck_least_often_are_drawn_first() -> None:
    fault: Fault[None] = Fault("a", "release", lambda world, rng: ends_by_itself, "")
    faults = [replace(fault, name=name) for name in "abcd"]
    deck = Deck(faults, Random(17), {"a": 5, "b": 1, "c": 1})
    drawn = [deck.draw().name for _ in range(9)]
    assert drawn[0] == "d"
    assert set(drawn[1:4]) == {"b", "c", "d"}
    assert "a" not in drawn
