"""What ties a process to the one that started it: dying together and saying where it listens."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from sn17_contract.ready import ReadyFile
from sn17_files import write_atomically

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_POLL_SECONDS: Final = 0.5


def die_with_parent() -> None:
    """End this process with SIGKILL when its parent ends, however that happens.

    On Linux the kernel does it (note that it watches the parent *thread* that started us); a thread
    that polls the parent's id covers other systems and a parent that was gone before we asked.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    if parent == 1 and os.getpid() != 1:
        logging.getLogger("sn17").error("the parent was gone before this process could watch it")
        os._exit(1)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def die_with(parent: int) -> None:
    """End this process with SIGKILL when process ``parent``, which started it, ends.

    The kernel does it, and watches the parent *thread*. For a parent that may be process 1, as in a
    container; without Linux nothing happens, and the end of a pipe must tell.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Be the one to whom processes come whose parent has died, as process 1 is anyway (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def write_ready_file(path: Path, ready: ReadyFile) -> None:
    write_atomically(path, ready.to_json())


def write_termination_reason(path: Path, reason: str) -> None:
    """Leave the reason of the exit where kubelet reads it; without that file do nothing."""
    if not path.exists():
        return
    try:
        path.write_text(reason[:4000])
    except OSError as error:
        logging.getLogger("sn17").warning("could not write %s: %s", path, error)
