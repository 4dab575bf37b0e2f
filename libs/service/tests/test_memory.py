"""The three sources against trees of files as kernels write them, and against this very process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from sn17_service import MemoryUnavailable, memory_reader, return_heap
from sn17_service.memory import ProcessMemory

MIB = 1024 * 1024
GIB = 1024 * MIB

V2_STAT = f"""anon {300 * MIB}
file {900 * MIB}
kernel_stack {1 * MIB}
pagetables {2 * MIB}
shmem {50 * MIB}
inactive_anon 0
inactive_file {500 * MIB}
active_file {400 * MIB}
slab_reclaimable {7 * MIB}
slab_unreclaimable {3 * MIB}
"""

V1_STAT = f"""cache {900 * MIB}
rss {10 * MIB}
hierarchical_memory_limit {{limit}}
total_cache {900 * MIB}
total_rss {300 * MIB}
total_shmem {50 * MIB}
total_inactive_file {500 * MIB}
total_active_file {400 * MIB}
"""


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def v2(root: Path, limit: object, folder: str = "sys/fs/cgroup") -> None:
    write(
        root,
        {
            "sys/fs/cgroup/cgroup.controllers": "cpu memory",
            "proc/self/cgroup": "0::/",
            f"{folder}/memory.stat": V2_STAT,
            f"{folder}/memory.current": 1256 * MIB,
            f"{folder}/memory.max": limit,
        },
    )


def v1(root: Path, limit: int, *, hierarchical: int = 2**63 - 4096, kmem: int | None = 5 * MIB) -> None:
    folder = "sys/fs/cgroup/memory"
    write(
        root,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/kubepods/pod1/abc\n0::/",
            f"{folder}/memory.stat": V1_STAT.format(limit=hierarchical),
            f"{folder}/memory.usage_in_bytes": 1256 * MIB,
            f"{folder}/memory.limit_in_bytes": limit,
            **({} if kmem is None else {f"{folder}/memory.kmem.usage_in_bytes": kmem}),
        },
    )


def test_v2_counts_what_cannot_be_reclaimed(tmp_path: Path) -> None:
    v2(tmp_path, 12 * GIB)
    reading = memory_reader("auto", root=tmp_path).read()
    assert reading.unreclaimable == (300 + 50 + 1 + 2 + 3) * MIB
    assert reading.working_set == (1256 - 500) * MIB
    assert reading.limit == 12 * GIB
    assert reading.ratio == reading.unreclaimable / (12 * GIB)
    assert sum(reading.components.values()) == reading.unreclaimable


def test_v1_counts_rss_shmem_and_charged_kernel_memory(tmp_path: Path) -> None:
    v1(tmp_path, GIB)
    reading = memory_reader("cgroup", root=tmp_path).read()
    assert reading.unreclaimable == (300 + 50 + 5) * MIB
    assert reading.working_set == (1256 - 500) * MIB
    assert reading.limit == GIB


def test_v1_without_kernel_accounting_and_with_the_limit_of_a_parent(tmp_path: Path) -> None:
    v1(tmp_path, 9223372036854771712, hierarchical=2 * GIB, kmem=None)
    reading = memory_reader("auto", root=tmp_path).read()
    assert reading.unreclaimable == 350 * MIB
    assert reading.limit == 2 * GIB


def test_v2_prefers_its_own_folder_where_it_is_mounted(tmp_path: Path) -> None:
    v2(tmp_path, GIB, "sys/fs/cgroup/user.slice/app.scope")
    write(tmp_path, {"proc/self/cgroup": "0::/user.slice/app.scope"})
    assert memory_reader("cgroup", root=tmp_path).read().limit == GIB


def test_auto_takes_the_process_where_the_cgroup_has_no_limit(tmp_path: Path) -> None:
    v2(tmp_path, "max")
    write(tmp_path, {"proc/self/status": "VmRSS:\t100 kB\nRssAnon:\t60 kB\nRssShmem:\t8 kB\nVmPTE:\t2 kB"})
    reader = memory_reader("auto", root=tmp_path)
    assert reader.name == "process"
    reading = reader.read()
    assert reading.unreclaimable == 70 * 1024
    assert reading.working_set == 100 * 1024
    assert reading.limit is None
    assert reading.ratio is None


@pytest.mark.parametrize("source", ["auto", "cgroup", "process"])
def test_a_given_limit_wins_over_the_kernels(tmp_path: Path, source: str) -> None:
    v2(tmp_path, 12 * GIB)
    write(tmp_path, {"proc/self/status": "RssAnon:\t60 kB"})
    assert memory_reader(source, GIB, root=tmp_path).read().limit == GIB  # type: ignore[arg-type]


def test_what_is_missing_or_garbled_is_unknown_not_zero(tmp_path: Path) -> None:
    with pytest.raises(MemoryUnavailable, match="SN17_MEMORY_SOURCE"):
        memory_reader("cgroup", root=tmp_path)
    with pytest.raises(MemoryUnavailable, match="status"):
        memory_reader("auto", root=tmp_path).read()
    v2(tmp_path, GIB)
    reader = memory_reader("cgroup", root=tmp_path)
    write(tmp_path, {"sys/fs/cgroup/memory.current": "nonsense"})
    with pytest.raises(MemoryUnavailable, match="holds no number"):
        reader.read()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_this_process_sees_its_own_allocation_and_its_return() -> None:
    def now() -> int:
        return ProcessMemory().read().unreclaimable

    before = now()
    block = mmap.mmap(-1, 64 * MIB)
    assert now() - before < 8 * MIB, "untouched memory is not held"
    for page in range(0, len(block), os.sysconf("SC_PAGESIZE")):
        block[page] = 1
    assert now() - before > 56 * MIB
    block.close()
    return_heap()
    assert now() - before < 16 * MIB
