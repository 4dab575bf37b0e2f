"""What a life that was given up still says is dropped; the control shows what would happen otherwise."""

from __future__ import annotations

import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest
from sn17_contract.metrics import GenerationKind, RerunCause
from sn17_trellis.backend import Job
from sn17_trellis.model_process.launcher import Handle
from sn17_trellis.model_process.life import Life, ModelDied, Ticket
from sn17_trellis.model_process.messages import Channel, Encoded, Generated, Progress

Wait = Callable[[Callable[[], object]], None]
JOB = Job(GenerationKind.TASK, 1, prompt="a red cube")
OLD_SIZE, FRESH_SIZE = 9, 10


class Unfenced(Life):
    """The control: knows jobs by their number alone, whichever life speaks."""

    table: dict[int, Ticket]

    def submit(self, number: int, *rest: Any) -> Ticket:
        self.table[number] = super().submit(number, *rest)
        return self.table[number]

    def _ticket(self, report: Any) -> Ticket | None:
        return self.table.get(report.number)


def encoded(size: int) -> Encoded:
    return Encoded(number=1, size=size, digest="", gaussians=9, finite_share=1.0, statistics={})


def second_run(kind: type[Life], wait_until: Wait) -> tuple[int, int]:
    """A job whose life is given up and goes on speaking: what its second run got, and how much was dropped.

    The process does not end although it is killed, as one that waits for a dead device.
    """
    others: list[Channel] = []

    def life(name: str) -> tuple[Life, Channel]:
        ours, theirs = socket.socketpair()
        others.append(Channel(Connection(theirs.detach())))
        made = kind(name, Channel(Connection(ours.detach())), Handle(1, lambda: None), ended=lambda: None)
        return made, others[-1]

    try:
        old, old_process = life("old")
        first = old.submit(1, JOB, ".old-1.ply.part", lambda *_: None)
        old.give_up(RerunCause.STALLED, "it does not move")
        with pytest.raises(ModelDied, match="does not move"):
            first.encoded.result(10)
        fresh, fresh_process = life("fresh")
        second = fresh.submit(1, JOB, ".fresh-1.ply.part", lambda *_: None)
        old_process.send(
            Generated(number=1, gaussians=9, stage_seconds={}, lane="", device_seconds=0, waited_seconds=0)
        )
        old_process.send(encoded(OLD_SIZE))
        wait_until(lambda: old.dropped == 2 or second.encoded.done())
        fresh_process.send(encoded(FRESH_SIZE))
        return second.encoded.result(10).size, old.dropped
    finally:
        for other in others:
            other.close()


def test_a_given_up_life_completes_nothing_any_more(wait_until: Wait) -> None:
    assert second_run(Life, wait_until) == (FRESH_SIZE, 2)


def test_without_fencing_the_late_report_completes_the_second_run(wait_until: Wait) -> None:
    Unfenced.table = {}
    assert second_run(Unfenced, wait_until) == (OLD_SIZE, 0)


@pytest.mark.parametrize(
    "heard", [b"", b"\x00\x00", b"\x00\x00\x04\x00{"], ids=["nothing", "a length", "a part"]
)
def test_a_life_that_is_let_go_while_its_process_speaks_ends_for_everybody(
    heard: bytes, wait_until: Wait
) -> None:
    """Its socket may be held open by others: who waits for an answer hears of the end all the same."""
    ours, theirs = socket.socketpair()
    ended: list[str] = []
    with theirs:
        life = Life(
            "old",
            Channel(Connection(ours.detach())),
            Handle(1, lambda: None),
            ended=lambda: ended.append("once"),
        )
        life.handle.ended(0)
        ticket = life.submit(1, JOB, ".old-1.ply.part", lambda *_: None)
        theirs.sendall(heard)
        life.close()
        with pytest.raises(ModelDied):
            ticket.encoded.result(10)
        wait_until(lambda: ended == ["once"])


def test_a_life_whose_reports_cannot_be_followed_is_ended(wait_until: Wait) -> None:
    """A fault of the service's own must not leave a job waiting for ever."""
    ours, theirs = socket.socketpair()
    process, killed = Channel(Connection(theirs.detach())), []
    handle = Handle(1, lambda: killed.append(1))
    handle.ended(-9)
    life = Life("old", Channel(Connection(ours.detach())), handle, ended=lambda: None)

    def broken(*_: object) -> None:
        raise RuntimeError("a listener that fails")

    ticket = life.submit(1, JOB, ".old-1.ply.part", broken)
    process.send(Progress(number=1, stage="structure", step=1, steps=2))
    with pytest.raises(ModelDied):
        ticket.encoded.result(10)
    wait_until(lambda: killed == [1])
    process.close()
