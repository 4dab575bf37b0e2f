"""The result file of the kill run: its figures, and every run that was started for it, with how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sn17_files import write_atomically

NAME = "gateway-kills.json"


@contextmanager
def attempt(tasks: int) -> Iterator[dict[str, Any]]:
    """Figures put into the dictionary are kept where a folder for them is named in SN17_RESULTS.

    The run is written down when it starts, so that one which is broken off stays in the file.
    """
    found: dict[str, Any] = {}
    folder = os.environ.get("SN17_RESULTS")
    if folder is None:
        yield found
        return
    path = Path(folder) / NAME
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    this = {"tasks": tasks, "commit": _commit(), "at": _now(), "ended": "broken off"}
    runs = [*before.get("runs", ()), this]
    _write(path, {**before, "runs": runs})
    started = time.monotonic()
    try:
        yield found
    except BaseException as error:
        this["ended"] = f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]
        _write(path, {**before, "runs": runs})
        raise
    this["ended"] = "complete"
    about = {
        "commit": this["commit"],
        "date": this["at"][:10],
        "processors": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "seconds_in_all": round(time.monotonic() - started),
    }
    _write(path, {**about, **found, "runs": runs})


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.check_output(command, cwd=Path(__file__).parent, text=True).strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")
