"""Run a command under a memory limit of its own cgroup, where one can be made: ``GIB NOTE COMMAND...``.

What was done is written to the file NOTE; the command then takes this process's place.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sn17_bench.trellis_process import limit_memory

if __name__ == "__main__":
    gib, note, *command = sys.argv[1:]
    Path(note).write_text(limit_memory(int(gib)))
    os.execvp(command[0], command)
