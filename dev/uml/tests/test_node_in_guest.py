"""A whole Kubernetes node with cgroup v2 inside the guest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sn17_cluster.local import TOOL_GROUPS
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import REPOSITORY, MissingError, require_tools
from sn17_uml import require, run_in_guest

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(2000)]

TESTS = REPOSITORY / "tests" / "cgroup_v2" / "test_container.py"


def test_containers_on_cgroup_v2(tmp_path: Path) -> None:
    try:
        require(node=True)
        require_tools(TOOL_GROUPS)
    except MissingError as missing:
        unavailable(missing)
    argv = [sys.executable, "-m", "pytest", str(TESTS), "-c", str(REPOSITORY / "pyproject.toml")]
    argv += ["-p", "pytest_timeout", "-p", "sn17_cluster.plugin", "-p", "no:cacheprovider"]
    argv += ["--junitxml=report.xml", "--durations=0", "-v"]
    environment = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SN17_CLUSTER_DIR": "/tmp/cluster",
        "SN17_CLUSTER_PATIENCE": "8",
        "SN17_REQUIRE_CLUSTER": "1",
        "SN17_TOOLS": os.environ.get("SN17_TOOLS") or str(Path.home() / ".cache" / "sn17-tools"),
    }
    outcome = run_in_guest(
        argv, shared=tmp_path, environment=environment, memory_mib=6144, deadline=1800, node=True
    )
    print(outcome.output)
    print(f"{outcome.seconds:.0f} s with boot and power-off")
    assert outcome.code == 0, outcome.console
    (suite,) = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert (int(suite.attrib["tests"]) > 0, suite.attrib["skipped"]) == (True, "0")
