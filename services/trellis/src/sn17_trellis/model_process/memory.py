"""Memory of single processes, and which of them the kernel ends first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

KIB: Final = 1024


def process_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Anonymous and shared memory of a process, pages that it shares counted in part; None if it is gone."""
    try:
        rollup = _fields((proc / str(pid) / "smaps_rollup").read_text())
        if "Pss_Anon" in rollup:
            return rollup["Pss_Anon"] + rollup.get("Pss_Shmem", 0)
        status = _fields((proc / str(pid) / "status").read_text())
    except OSError:
        return None
    return status.get("RssAnon", 0) + status.get("RssShmem", 0)


def set_oom_score(pid: int, raised_by: int, proc: Path = Path("/proc")) -> None:
    """Let the kernel choose a process before this one when memory runs out, where that is possible."""
    try:
        own = int((proc / "self" / "oom_score_adj").read_text())
        (proc / str(pid) / "oom_score_adj").write_text(str(min(1000, own + raised_by)))
    except (OSError, ValueError):
        return


def _fields(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {
        parts[0].rstrip(":"): int(parts[1]) * KIB
        for parts in lines
        if len(parts) == 3 and parts[2] == "kB" and parts[1].isdigit()
    }
