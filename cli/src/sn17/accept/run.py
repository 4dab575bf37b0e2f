"""The acceptance run: fixed prompts and seeds on workers that are otherwise idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sn17_contract.http import WorkerState
from sn17_contract.worker import WorkerStatus
from sn17_splats import SplatError, read_splat

from sn17.accept.measure import coverage_kept, logit_std
from sn17.accept.prompts import acceptance_prompts
from sn17.accept.stack import BusyError, Generation, NoAnswerError, Stack, StackError, memory_ratio, ready
from sn17.accept.verdict import Sample

IDLE_POLL_SECONDS = 0.5
MEMORY_POLL_SECONDS = 0.25


@dataclass(slots=True)
class MemoryWatch:
    """The highest share of the limit seen while something runs."""

    highest: float | None = None
    unknown: bool = False

    def see(self, ratio: float | None) -> None:
        if ratio is None:
            self.unknown = True
        else:
            self.highest = max(self.highest or 0.0, ratio)

    @property
    def ratio(self) -> float | None:
        """None as soon as one reading had no limit."""
        return None if self.unknown else self.highest


@dataclass(slots=True)
class AcceptanceRun:
    """Runs the samples one by one, worker after worker in turn.

    Each generation begins on a worker that is ready and without a job, and a worker takes one job at a time,
    so a sample's seconds are its own. ``on_sample`` sees each sample as it is done, with the repaired PLY.
    """

    stack: Stack
    policy: str
    count: int
    idle_seconds: float = 600.0
    on_sample: Callable[[Sample, bytes], None] = lambda sample, ply: None
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    samples: list[Sample] = field(default_factory=list)
    _met: set[str] = field(default_factory=set)
    """Workers that have answered: one that never did is not there, and is not waited for."""

    def run(self) -> list[Sample]:
        """All samples.

        Raises:
            StackError: a service is gone, refused for good, or no worker became idle in time.
        """
        for index, (prompt, seed) in enumerate(acceptance_prompts(self.count)):
            url = self.stack.workers[index % len(self.stack.workers)]
            sample, ply = self._sample(url, prompt, seed)
            self.samples.append(sample)
            self.on_sample(sample, ply)
        return self.samples

    def _sample(self, url: str, prompt: str, seed: int) -> tuple[Sample, bytes]:
        watch = MemoryWatch()
        with self._watching(url, watch):
            made = self._generated(url, prompt, seed)
        watch.see(memory_ratio(self.stack.worker(url)))
        try:
            before = read_splat(made.ply)
        except SplatError as error:
            raise StackError(f"the worker's answer to {prompt!r} is no splat: {error}") from error
        fixed = self.stack.fix(made.ply, self.policy, as_ply=True)
        sample = Sample(
            prompt=prompt,
            seed=seed,
            worker=made.worker,
            gaussians=len(before),
            seconds=made.seconds,
            memory_ratio=watch.ratio,
            verdict=fixed.report.verdict,
            changed=fixed.report.changed,
            logit_std_before=logit_std(before),
            logit_std_after=logit_std(fixed.splats),
            coverage_kept=coverage_kept(before, fixed.splats),
        )
        return sample, fixed.body

    def _generated(self, url: str, prompt: str, seed: int) -> Generation:
        deadline = self.monotonic() + self.idle_seconds
        known: tuple[object, ...] = ()
        why: StackError
        while True:
            status = None
            try:
                status = self.stack.worker(url)
            except NoAnswerError as error:
                if url not in self._met:
                    raise
                why = error  # it starts anew, perhaps
            else:
                self._met.add(url)
            if status is not None:
                why = StackError(self._not_idle(status))
                if ready(status):
                    try:
                        return self.stack.generate(url, prompt, seed)
                    except BusyError:
                        pass  # somebody else came first
                # Without a GPU the first load takes minutes: as long as it gets on, it is waited for.
                if status.state is WorkerState.WARMING and (seen := _progress(status)) != known:
                    deadline, known = self.monotonic() + self.idle_seconds, seen
            if self.monotonic() > deadline:
                raise why
            self.sleep(IDLE_POLL_SECONDS)

    def _not_idle(self, status: WorkerStatus) -> str:
        reason = f" ({status.reason})" if status.reason else ""
        said = f"for {self.idle_seconds:.0f} s, its state is {status.state}{reason}"
        if status.state is WorkerState.WARMING:
            return f"worker {status.worker} made no progress {said}"
        return (
            f"worker {status.worker} was not idle {said}: stop the miner for the acceptance run "
            "(kubectl scale statefulset/sn17-miner --replicas=0)"
        )

    @contextmanager
    def _watching(self, url: str, watch: MemoryWatch) -> Iterator[None]:
        """Read the worker's memory again and again, beside the generation."""
        done = threading.Event()

        def poll() -> None:
            while not done.is_set():
                # Whether the worker is gone, the generation itself tells.
                with suppress(StackError):
                    watch.see(memory_ratio(self.stack.worker(url)))
                done.wait(MEMORY_POLL_SECONDS)

        thread = threading.Thread(target=poll, name="memory-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _progress(status: WorkerStatus) -> tuple[object, ...]:
    """What differs when a worker that loads its models has got on."""
    job = (status.job.stage, status.job.step) if status.job else None
    return (status.boot_id, status.life_id, status.phase, job)
