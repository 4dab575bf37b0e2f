"""A machine that lacks something is told in one sentence what, and how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sn17_cluster.images import write_archive
from sn17_cluster.requirements import REPOSITORY, MissingError, require_commands

WANTS_A_CONTROL_PLANE = "def test_it(api):\n    pass\n"
WANTS_A_NODE = "def test_it(cluster):\n    pass\n"


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=100, check=False)


def pytest_on(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test_it.py"
    path.write_text(code)
    argv = [sys.executable, "-m", "pytest", str(path), "-rs", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    return run(*argv, SN17_TOOLS=str(folder / "none"), **environment)


def test_without_tools_a_test_is_skipped_with_the_command_that_builds_them(tmp_path: Path) -> None:
    answer = pytest_on(tmp_path, WANTS_A_CONTROL_PLANE, SN17_REQUIRE_CLUSTER="")
    assert answer.returncode == 0, answer.stdout
    assert "1 skipped" in answer.stdout
    assert "run `make tools`" in answer.stdout


def test_where_a_cluster_is_required_the_test_fails_instead(tmp_path: Path) -> None:
    answer = pytest_on(tmp_path, WANTS_A_CONTROL_PLANE, SN17_REQUIRE_CLUSTER="1")
    assert answer.returncode == 1
    assert "SN17_REQUIRE_CLUSTER=1, but" in answer.stdout


def test_a_standing_cluster_that_is_not_up_is_named(tmp_path: Path) -> None:
    empty = {"SN17_CLUSTER_DIR": str(tmp_path / "runs"), "SN17_REQUIRE_CLUSTER": ""}
    answer = pytest_on(tmp_path, WANTS_A_NODE, SN17_CLUSTER="up", SN17_KUBECONFIG="", **empty)
    assert "run `make cluster-up`" in answer.stdout


def test_a_missing_command_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"^ctr not found: .*install-debian.sh as root.* containerd$"):
        require_commands(["ctr"], path=str(tmp_path))


@pytest.mark.parametrize(
    ("script", "said"),
    [("build.py", "Go is not installed"), ("images.py", "neither docker's daemon nor buildah")],
)
def test_a_builder_says_what_it_lacks(tmp_path: Path, script: str, said: str) -> None:
    empty = {"PATH": str(tmp_path), "SN17_TOOLS": str(tmp_path / "t"), "SN17_IMAGES": str(tmp_path / "i")}
    answer = run(sys.executable, str(REPOSITORY / "dev" / "tools" / script), **empty)
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_same_binary_gives_the_same_image(tmp_path: Path) -> None:
    source = tmp_path / "program"
    source.write_bytes(b"\x7fELF")
    archives = [
        write_archive(tmp_path / name, "sn17/p:1", {"/p": source}, entrypoint=["/p"]) for name in ("a", "b")
    ]
    assert archives[0].read_bytes() == archives[1].read_bytes()
