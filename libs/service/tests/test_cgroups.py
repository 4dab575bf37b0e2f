"""Which level of the control groups limits a process: trees of files as kernels write them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_service import MemoryUnavailable, memory_reader
from sn17_service.cgroups import CgroupV1Memory, CgroupV2Memory, MemoryEvents, memory_cgroup

MIB = 1024 * 1024
UNLIMITED_V1 = 2**63 - 4096
V2_MOUNT = "sys/fs/cgroup"
V1_MOUNT = "sys/fs/cgroup/memory"


@dataclass(frozen=True)
class Tree:
    """The root of a machine's files; amounts in MiB."""

    root: Path

    def write(self, name: str, content: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")

    def mounts(self, *lines: str) -> None:
        """Lines of mountinfo: root, mount point, type, options of the super block."""
        ids = (f"{30 + i} 29 0:{28 + i} {line}" for i, line in enumerate(lines))
        self.write("proc/self/mountinfo", "\n".join(ids))

    def process(self, *, v2: str = "/", v1: str | None = None) -> None:
        lines = [f"0::{v2}"] if v1 is None else [f"4:memory:{v1}", "9:name=systemd:/", f"0::{v2}"]
        self.write("proc/self/cgroup", "\n".join(lines))

    def v2(self, path: str, limit: object, used: int, *, at: str = V2_MOUNT) -> None:
        folder = f"{at}/{path}".rstrip("/")
        self.write(f"{folder}/memory.max", limit if limit == "max" else int(str(limit)) * MIB)
        self.write(f"{folder}/memory.stat", f"anon {used * MIB}\ninactive_file {5 * MIB}")
        self.write(f"{folder}/memory.current", (used + 20) * MIB)

    def v1(
        self, path: str, limit: int | None, used: int, *, hierarchical: int | None, at: str = V1_MOUNT
    ) -> None:
        folder = f"{at}/{path}".rstrip("/")
        stat = [f"total_rss {used * MIB}", f"total_inactive_file {5 * MIB}"]
        kernel = UNLIMITED_V1 if hierarchical is None else hierarchical * MIB
        stat.append(f"hierarchical_memory_limit {kernel}")
        self.write(f"{folder}/memory.limit_in_bytes", UNLIMITED_V1 if limit is None else limit * MIB)
        self.write(f"{folder}/memory.stat", "\n".join(stat))
        self.write(f"{folder}/memory.usage_in_bytes", (used + 20) * MIB)

    def read(self, source: str = "cgroup") -> tuple[int | None, int]:
        """Limit and what cannot be reclaimed, in MiB."""
        reading = memory_reader(source, root=self.root).read()  # type: ignore[arg-type]
        limit = None if reading.limit is None else reading.limit // MIB
        return limit, reading.unreclaimable // MIB


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


UNIFIED = "/ /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"


# --- cgroup v2 --------------------------------------------------------------------------------------


def test_v2_a_limit_on_a_parent_counts_with_the_parents_usage(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/user.slice/app.scope")
    tree.v2("user.slice", 500, used=400)
    tree.v2("user.slice/app.scope", "max", used=100)
    assert tree.read() == (500, 400)
    assert tree.read("auto") == (500, 400)


def test_v2_the_smallest_of_several_limits_counts(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a/b/c")
    tree.v2("a", 900, used=700)
    tree.v2("a/b", 400, used=300)
    tree.v2("a/b/c", 600, used=50)
    assert tree.read() == (400, 300)
    tree.v2("a/b/c", 200, used=50)
    assert tree.read() == (200, 50)


def test_v2_of_equal_limits_the_outer_one_counts_since_it_is_reached_first(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/pod/container")
    tree.v2("pod", 300, used=260)
    tree.v2("pod/container", 300, used=100)
    assert tree.read() == (300, 260)


def test_v2_without_any_limit_reads_its_own_level_and_auto_takes_the_process(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a/b")
    tree.v2("a", "max", used=700)
    tree.v2("a/b", "max", used=50)
    tree.write("proc/self/status", "RssAnon:\t2048 kB")
    assert tree.read() == (None, 50)
    assert tree.read("auto") == (None, 2)


def test_v2_a_limit_that_is_set_later_is_seen_by_auto(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a/b")
    tree.v2("a", "max", used=700)
    tree.v2("a/b", "max", used=50)
    tree.write("proc/self/status", "RssAnon:\t2048 kB")
    reader = memory_reader("auto", root=tree.root)
    assert (reader.name, reader.read().limit) == ("process", None)
    tree.v2("a", 800, used=700)
    assert reader.read().ratio == 700 / 800
    assert reader.name == "cgroup v2"


def test_auto_does_not_fall_back_to_the_process_once_a_limit_was_known(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a")
    tree.v2("a", 800, used=700)
    tree.write("proc/self/status", "RssAnon:\t2048 kB")
    reader = memory_reader("auto", root=tree.root)
    assert reader.read().limit == 800 * MIB
    (tree.root / V2_MOUNT / "a/memory.stat").unlink()
    with pytest.raises(MemoryUnavailable, match=r"memory\.stat"):
        reader.read()


def test_v2_levels_without_the_memory_controller_are_passed_over(tree: Tree) -> None:
    """A parent may hand on other controllers only: its children then have no memory files."""
    tree.mounts(UNIFIED)
    tree.process(v2="/a/b/c")
    tree.v2("a", 900, used=700)
    tree.v2("a/b", 400, used=300)
    (tree.root / V2_MOUNT / "a/b/c").mkdir()
    assert tree.read() == (400, 300)


def test_v2_the_root_of_the_hierarchy_has_no_limit_of_its_own(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a")
    tree.v2("a", 400, used=300)
    tree.write(f"{V2_MOUNT}/memory.stat", f"anon {9000 * MIB}")
    assert tree.read() == (400, 300)


def test_v2_a_namespace_whose_root_is_the_container(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/")
    tree.v2("", 400, used=300)
    assert tree.read() == (400, 300)


def test_v2_a_part_of_the_hierarchy_is_mounted(tree: Tree) -> None:
    tree.mounts("/kubepods/pod1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    tree.process(v2="/kubepods/pod1/main")
    tree.v2("", 400, used=300)
    tree.v2("main", 500, used=100)
    assert tree.read() == (400, 300)


def test_v2_a_new_namespace_over_an_old_mount_finds_itself_by_its_process_id(tree: Tree) -> None:
    """`unshare --cgroup` without a new mount: the mount's root lies above the namespace's, names unknown."""
    tree.mounts("/../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    tree.process(v2="/main")
    for path, used in (("a", 310), ("a/b", 300), ("a/b/main", 100), ("a/x", 5), ("a/x/main", 5)):
        tree.v2(path, 400 if path == "a/b" else "max", used=used)
        tree.write(f"{V2_MOUNT}/{path}/cgroup.procs", "1\n2")
    tree.write(f"{V2_MOUNT}/a/b/main/cgroup.procs", f"1\n{os.getpid()}")
    assert tree.read() == (400, 300)


def test_v2_a_process_outside_of_what_is_mounted_is_unknown(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/../other")
    tree.v2("", 400, used=300)
    tree.write("sys/fs/other/memory.current", 1)
    with pytest.raises(MemoryUnavailable, match="SN17_MEMORY_SOURCE"):
        tree.read()


def test_v2_the_mount_that_shows_most_parents_is_used(tree: Tree) -> None:
    """Nested containers bind a part of the hierarchy somewhere else."""
    tree.mounts(
        "/a/b /mnt/inner rw - cgroup2 cgroup2 rw",
        UNIFIED,
        "/a/b/c /sys/fs/cgroup/a/b/c/nested rw - cgroup2 cgroup2 rw",
    )
    tree.process(v2="/a/b/c")
    tree.v2("a", 250, used=240)
    for at, path in ((V2_MOUNT, "a/b"), ("mnt/inner", "")):
        tree.v2(path, 300, used=150, at=at)
        tree.v2(f"{path}/c", "max", used=100, at=at)
    tree.v2("a/b/c/nested", 7, used=7)
    assert tree.read() == (250, 240)


def test_v2_a_mount_that_is_covered_by_another_gives_way(tree: Tree) -> None:
    tree.mounts(UNIFIED, "/ /sys/fs/cgroup rw - tmpfs tmpfs rw", "/ /mnt/my\\040cg rw - cgroup2 none rw")
    tree.process(v2="/a")
    tree.write(f"{V2_MOUNT}/unrelated", "")
    tree.v2("a", 300, used=150, at="mnt/my cg")
    assert tree.read() == (300, 150)


def test_v2_a_level_that_vanishes_is_not_a_limit(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a/b")
    tree.v2("a", 200, used=150)
    tree.v2("a/b", 300, used=100)
    reader = memory_reader("cgroup", root=tree.root)
    assert reader.read().limit == 200 * MIB
    (tree.root / V2_MOUNT / "a/memory.max").unlink()
    assert reader.read().limit == 300 * MIB


def test_v2_a_process_that_is_moved_is_followed(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/old")
    tree.v2("old", 200, used=150)
    reader = memory_reader("cgroup", root=tree.root)
    assert reader.read().limit == 200 * MIB
    shutil.rmtree(tree.root / V2_MOUNT / "old")
    with pytest.raises(MemoryUnavailable):
        reader.read()
    tree.v2("new", 300, used=100)
    tree.process(v2="/new")
    assert reader.read().limit == 300 * MIB


def test_a_limit_that_is_no_number_is_unknown_not_unlimited(tree: Tree) -> None:
    tree.mounts(UNIFIED)
    tree.process(v2="/a/b")
    tree.v2("a", 200, used=150)
    tree.v2("a/b", 300, used=100)
    tree.write(f"{V2_MOUNT}/a/memory.max", "lots")
    with pytest.raises(MemoryUnavailable, match="holds no number"):
        tree.read()


@pytest.mark.parametrize("text", ["", "0::/", "nonsense", "31 23 0:28 / /sys/fs/cgroup", "- - cgroup2"])
def test_an_unreadable_table_of_mounts_leaves_the_usual_places(tree: Tree, text: str) -> None:
    tree.write("proc/self/mountinfo", text)
    tree.process(v2="/a")
    tree.write(f"{V2_MOUNT}/cgroup.controllers", "memory")
    tree.v2("a", 300, used=100)
    assert tree.read() == (300, 100)


# --- hybrid, and cgroup v1 --------------------------------------------------------------------------


HYBRID = (
    "/ /sys/fs/cgroup rw - tmpfs tmpfs rw",
    "/ /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
    "/ /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
    "/ /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
)


def test_hybrid_with_memory_on_v1(tree: Tree) -> None:
    tree.mounts(*HYBRID)
    tree.process(v2="/s", v1="/a/b")
    (tree.root / "sys/fs/cgroup/unified/s").mkdir(parents=True)
    tree.v1("a", 200, used=150, hierarchical=200)
    tree.v1("a/b", 300, used=100, hierarchical=200)
    assert tree.read() == (200, 150)


def test_hybrid_with_memory_on_v2(tree: Tree) -> None:
    tree.mounts(*(line for line in HYBRID if ",memory" not in line))
    tree.process(v2="/s/t")
    tree.v2("s", 200, used=150, at="sys/fs/cgroup/unified")
    tree.v2("s/t", "max", used=100, at="sys/fs/cgroup/unified")
    assert tree.read() == (200, 150)


def test_v1_of_equal_limits_the_outer_one_counts(tree: Tree) -> None:
    tree.mounts(*HYBRID)
    tree.process(v1="/a/b")
    tree.v1("a", 200, used=150, hierarchical=200)
    tree.v1("a/b", 200, used=100, hierarchical=200)
    assert tree.read() == (200, 150)


def test_v1_a_limit_above_the_mount_is_held_against_the_outermost_visible_usage(tree: Tree) -> None:
    tree.mounts("/pods/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory")
    tree.process(v1="/pods/x/main")
    tree.v1("", None, used=150, hierarchical=200)
    tree.v1("main", 400, used=100, hierarchical=200)
    assert tree.read() == (200, 150)


def test_v1_a_parent_that_does_not_pass_its_limit_on_is_not_counted(tree: Tree) -> None:
    """`memory.use_hierarchy` 0: the kernel's own word is the hierarchical limit of the process's level."""
    tree.mounts(*HYBRID)
    tree.process(v1="/a/b")
    tree.v1("a", 200, used=150, hierarchical=200)
    tree.v1("a/b", 300, used=100, hierarchical=300)
    assert tree.read() == (300, 100)


def test_v1_without_any_limit(tree: Tree) -> None:
    tree.mounts(*HYBRID)
    tree.process(v1="/a/b")
    tree.v1("", None, used=900, hierarchical=None)
    tree.v1("a", None, used=150, hierarchical=None)
    tree.v1("a/b", None, used=100, hierarchical=None)
    assert tree.read() == (None, 100)


# --- events -----------------------------------------------------------------------------------------


def test_v2_counts_of_the_oom_killer_are_those_of_the_processs_own_level(tree: Tree) -> None:
    tree.v2("a", 200, used=150)
    tree.v2("a/b", 300, used=100)
    tree.write(f"{V2_MOUNT}/a/memory.events", "oom 9\noom_kill 9")
    tree.write(f"{V2_MOUNT}/a/b/memory.events", "low 0\nhigh 3\nmax 17\noom 2\noom_kill 4\noom_group_kill 1")
    folder = tree.root / V2_MOUNT
    reader = CgroupV2Memory(folder / "a/b", top=folder)
    assert reader.events() == MemoryEvents(oom=2, oom_kill=4, oom_group_kill=1)


def test_v1_counts_kills_alone(tree: Tree) -> None:
    tree.v1("a", 200, used=150, hierarchical=200)
    tree.write(f"{V1_MOUNT}/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3")
    events = CgroupV1Memory(tree.root / V1_MOUNT / "a").events()
    assert events == MemoryEvents(oom=None, oom_kill=3, oom_group_kill=None)


@pytest.mark.parametrize("text", ["", "oom_kill many", "oom 1"])
def test_counts_that_are_not_there_are_unknown_not_zero(tree: Tree, text: str) -> None:
    tree.v2("a", 200, used=150)
    reader = CgroupV2Memory(tree.root / V2_MOUNT / "a")
    with pytest.raises(MemoryUnavailable, match=r"memory\.events"):
        reader.events()
    tree.write(f"{V2_MOUNT}/a/memory.events", text)
    with pytest.raises(MemoryUnavailable, match=r"memory\.events"):
        reader.events()


def test_a_process_of_its_own_has_no_such_counts(tree: Tree) -> None:
    tree.write("proc/self/status", "RssAnon:\t2048 kB")
    assert memory_reader("process", root=tree.root).events() is None


def test_the_kind_of_a_given_folder_is_seen_by_its_files(tree: Tree) -> None:
    tree.v2("a", 200, used=150)
    tree.v1("b", 200, used=150, hierarchical=200, at="sys/fs/v1")
    assert isinstance(memory_cgroup(tree.root / V2_MOUNT / "a"), CgroupV2Memory)
    assert isinstance(memory_cgroup(tree.root / "sys/fs/v1/b"), CgroupV1Memory)
    with pytest.raises(MemoryUnavailable, match="no memory files"):
        memory_cgroup(tree.root / "sys/fs")


# --- any tree ---------------------------------------------------------------------------------------


LEVELS = st.lists(
    st.tuples(st.none() | st.integers(1, 50), st.integers(0, 40), st.booleans()), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(levels=LEVELS, visible_from=st.integers(0, 5), namespace=st.booleans())
def test_v2_any_chain_of_levels(
    tmp_path_factory: pytest.TempPathFactory,
    levels: list[tuple[int | None, int, bool]],
    visible_from: int,
    namespace: bool,
) -> None:
    """Each level: limit, what it holds beside its children, and whether it has memory files.

    What the reader sees equals the smallest limit of the visible levels, and of those that hold it the
    outermost; ``visible_from`` cuts off what lies above the mount.
    """
    tree = Tree(tmp_path_factory.mktemp("chain"))
    names = [f"l{i}" for i in range(len(levels))]
    hidden = min(visible_from, len(levels) - 1)
    usage = [sum(held for _, held, _ in levels[i:]) for i in range(len(levels))]
    # A level has the files only if every level above has them; the innermost visible one always has here.
    with_files = [all(has for _, _, has in levels[: i + 1]) or i == hidden for i in range(len(levels))]
    shown = names[hidden + 1 :]
    for i in range(hidden, len(levels)):
        path = "/".join(shown[: i - hidden])
        (tree.root / V2_MOUNT / path).mkdir(parents=True, exist_ok=True)
        if with_files[i]:
            tree.v2(path, "max" if levels[i][0] is None else levels[i][0], used=usage[i])
    above = "/" + "/".join(names[: hidden + 1])
    root = "/" if namespace else above
    tree.mounts(f"{root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    tree.process(v2="/".join([root.rstrip("/"), *shown]) or "/")
    seen = [i for i in range(hidden, len(levels)) if with_files[i]]
    limits = [limit for i in seen if (limit := levels[i][0]) is not None]
    smallest = min(limits, default=None)
    holder = seen[-1] if smallest is None else next(i for i in seen if levels[i][0] == smallest)
    assert tree.read() == (smallest, usage[holder])
