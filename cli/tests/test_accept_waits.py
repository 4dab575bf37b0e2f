"""The acceptance run waits for a worker that gets on, and says why it gave one up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sn17.accept.run import AcceptanceRun
from sn17.accept.stack import Fix, Generation, NoAnswerError, StackError
from sn17_contract.http import WorkerState
from sn17_contract.worker import JobStatus, WorkerStatus


def status(state: WorkerState, step: int = 0) -> WorkerStatus:
    return WorkerStatus(
        worker="w", boot_id="b", life_id="l", state=state, reason=None, memory=None, models=(),
        gaussians_mean=None,
        job=JobStatus(key=None, stage="structure", step=step, steps=25, progress_at=0)
        if state is not WorkerState.READY
        else None,
    )  # fmt: skip


class AskedError(Exception):
    """The run got as far as a generation."""


@dataclass
class Scripted:
    """Answers of a worker, one for every five minutes; the last one stays. No clock but this one."""

    answers: list[WorkerStatus | StackError]
    workers: tuple[str, ...] = ("http://w",)
    now: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += 300.0

    def worker(self, url: str) -> WorkerStatus:
        answer = self.answers[min(int(self.now // 300), len(self.answers) - 1)]
        if isinstance(answer, StackError):
            raise answer
        return answer

    def generate(self, url: str, prompt: str, seed: int) -> Generation:
        raise AskedError

    def fix(self, ply: bytes, policy: str, *, as_ply: bool) -> Fix:
        raise NotImplementedError


def run(*answers: WorkerStatus | StackError) -> None:
    stack = Scripted(list(answers))
    AcceptanceRun(stack, "measured", 1, monotonic=lambda: stack.now, sleep=stack.sleep).run()


def test_a_first_load_that_gets_on_is_waited_for_however_long_it_takes() -> None:
    with pytest.raises(AskedError):
        run(*[status(WorkerState.WARMING, step) for step in range(20)], status(WorkerState.READY))


def test_a_load_that_does_not_get_on_is_given_up_and_no_miner_is_blamed() -> None:
    with pytest.raises(StackError, match="made no progress for 600 s") as caught:
        run(status(WorkerState.WARMING, 3))
    assert "miner" not in str(caught.value)


def test_another_ones_jobs_are_not_waited_for_though_they_get_on() -> None:
    with pytest.raises(StackError, match="stop the miner"):
        run(*[status(WorkerState.BUSY, step) for step in range(20)], status(WorkerState.READY))


REFUSED = NoAnswerError("the worker at http://w did not answer: connection refused")


def test_a_worker_that_starts_anew_may_refuse_connections_for_a_moment() -> None:
    with pytest.raises(AskedError):
        run(status(WorkerState.WARMING), REFUSED, status(WorkerState.READY))


def test_a_worker_that_was_never_there_is_said_at_once() -> None:
    """It was waited for, ten minutes long, where an address was mistyped."""
    with pytest.raises(NoAnswerError, match="connection refused"):
        run(REFUSED, status(WorkerState.READY))
