"""Orphans come to process 1, or to a subreaper, and are reaped; what somebody waits for is left alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and subreapers")

PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from sn17_service import become_subreaper, reap_orphans

def zombies():
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                found.append(int(child))
    return sorted(found)

become_subreaper()
gate_out, gate_in = os.pipe()
# The grandchild outlives its parent and ends when the gate closes; its name has brackets and spaces.
named = "import ctypes, os; ctypes.CDLL(None).prctl(15, b'a) Z (b'); "
code = named + "os.fork() or (os.read(%d, 1), os._exit(3))"
parent = subprocess.run([sys.executable, "-c", code % gate_out], pass_fds=[gate_out])
assert reap_orphans(()) == [], "it lives still"
ours = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
os.close(gate_out)
os.close(gate_in)
while len(zombies()) < 2:
    pass
(orphan,) = set(zombies()) - {ours.pid}
print(reap_orphans({ours.pid}) == [orphan], zombies() == [ours.pid], ours.wait(), reap_orphans(()))
"""


def test_orphans_are_reaped_and_nobody_elses_children() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        # What it starts forks beside a thread, of which Python 3.12 and later warn.
        env={**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("True True 7 []", "")
