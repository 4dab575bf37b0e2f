"""What the kernel says of the workers' memory: how full each life is, and whom it has killed.

The counts come from the containers' control groups on this machine, so they are there while the API server,
the kubelet or the worker itself is not. kubelet's word on how a container ended covers what is between two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sn17_cluster.stack import terminations
from sn17_service import MemoryUnavailable
from sn17_service.cgroups import memory_cgroup

from sn17_chaos.history import MemorySample, OomKill


def containers(groups: Iterable[Path], pod: Mapping[str, Any]) -> list[Path]:
    """Control groups of a pod's containers below those of the nodes, named by the containers' ids."""
    name = f"pod{pod['metadata']['uid']}"
    found: list[Path] = []
    for group in groups:
        for folder in (*group.glob(f"kubepods/{name}"), *group.glob(f"kubepods/*/{name}")):
            found += [path for path in folder.iterdir() if path.is_dir()]
    return found


@dataclass(slots=True)
class MemoryWatch:
    """Samples by incarnation, which is a container's id, and the kills in the order they were learnt."""

    samples: dict[str, list[MemorySample]] = field(default_factory=dict)
    kills: list[OomKill] = field(default_factory=list)
    _counted: dict[str, int] = field(default_factory=dict)

    def look(self, groups: Iterable[Path], pods: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take a sample of every container of these pods."""
        groups = list(groups)
        for pod in pods:
            # A pod may go while it is looked at.
            with contextlib.suppress(OSError):
                for folder in containers(groups, pod):
                    with contextlib.suppress(MemoryUnavailable):
                        self._sample(folder, str(pod["metadata"]["name"]), now)

    def _sample(self, folder: Path, worker: str, now: float) -> None:
        life = folder.name
        # In this order: memory that a kill has freed is read only after the kill has been counted.
        memory = memory_cgroup(folder)
        ratio = memory.read().ratio
        known, count = self._counted.get(life, 0), memory.events().oom_kill
        if count > known:
            self._counted[life] = count
            self.kills.append(OomKill(now, worker, life))
        elif ratio is not None:
            self.samples.setdefault(life, []).append(MemorySample(now, worker, life, ratio))

    def note(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """Kills that kubelet tells of and nobody has counted yet."""
        for pod in pods:
            for end in terminations(pod):
                life = str(end.get("containerID", "")).removeprefix("containerd://")
                if end.get("reason") != "OOMKilled" or life in self._counted:
                    continue
                self._counted[life] = 1
                ended = datetime.fromisoformat(str(end["finishedAt"])).timestamp()
                # kubelet's times are whole seconds.
                at = max([ended, *(sample.at for sample in self.samples.get(life, ())[-1:])])
                self.kills.append(OomKill(at, str(pod["metadata"]["name"]), life))

    def before(self, kills: Iterable[OomKill]) -> list[MemorySample]:
        """The samples of the lives that ended so."""
        lives = dict.fromkeys(kill.incarnation for kill in kills)
        return [sample for life in lives for sample in self.samples.get(life, ())]
