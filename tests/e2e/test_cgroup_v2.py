"""The worker on a real cgroup v2, in a kernel of its own: `tests/cgroup_v2`, whatever the machine has."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import REPOSITORY, MissingError
from sn17_uml import require, run_in_guest

TESTS = REPOSITORY / "tests" / "cgroup_v2" / "test_worker.py"


@pytest.mark.timeout(700)
def test_the_worker_under_limits_of_cgroup_v2(tmp_path: Path) -> None:
    try:
        require()
    except MissingError as missing:
        unavailable(missing)
    argv = [sys.executable, "-m", "pytest", str(TESTS), "-c", str(REPOSITORY / "pyproject.toml")]
    argv += ["-p", "pytest_timeout", "-p", "no:cacheprovider", "--junitxml=report.xml", "--durations=0", "-v"]
    # Looking for the plug-ins of all packages takes longer than the tests of a worker.
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # Some 40 s on a machine that does nothing else.
    outcome = run_in_guest(argv, shared=tmp_path, environment=quick, deadline=600)
    print(outcome.output)
    print(f"{outcome.seconds:.0f} s with boot and power-off")
    assert outcome.code == 0, outcome.console
    (suite,) = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert int(suite.attrib["tests"]) > 0
    assert suite.attrib["skipped"] == "0", "the guest has what each of them needs"
    assert outcome.console.count("Memory cgroup out of memory") >= 2, "the controls were really killed"
