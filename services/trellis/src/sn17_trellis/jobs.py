"""One job on its way through the worker."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from sn17_trellis.backend import Job
from sn17_trellis.spool import StoredResult


@dataclass(slots=True, eq=False)
class Running:
    """Progress is written by the worker thread and read by probes; every field is replaced whole.

    ``done`` carries the stored result or the ``Problem`` to answer with. ``waiters`` belongs to the
    event loop: how many answers still wait for it.
    """

    job: Job
    fingerprint: str
    started_at: float
    key: str | None = None
    done: Future[StoredResult] = field(default_factory=Future)
    cancel: threading.Event = field(default_factory=threading.Event)
    stage: str = "queued"
    step: int = 0
    steps: int = 0
    progress_at: float = 0.0

    def __post_init__(self) -> None:
        self.progress_at = self.started_at


def fingerprint(job: Job, *, seed: int) -> str:
    """Identifies what was asked for; ``seed`` is the one of the request (-1 = any)."""
    content = hashlib.sha256()
    content.update(repr((job.prompt, seed, job.sampling)).encode())
    if job.image is not None:
        content.update(repr(job.image.shape).encode())
        content.update(job.image.tobytes())
    return content.hexdigest()
