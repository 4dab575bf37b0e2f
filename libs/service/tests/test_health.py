from __future__ import annotations

from sn17_service import Health, Readiness


def test_a_silent_heartbeat_is_named_until_it_beats_again() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    beat = health.watch("loop", 10)
    now[0] = 10
    assert health.problems() == {}
    now[0] = 11
    assert "11 s" in health.problems()["loop"]
    beat()
    assert health.problems() == {}


def test_a_failure_stays_and_an_unwatched_beat_does_not_come_back() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    beat = health.watch("thread", 1)
    health.unwatch("thread")
    beat()
    now[0] = 100
    assert health.problems() == {}
    health.fail("thread", "ended")
    assert health.problems() == {"thread": "ended"}


def test_readiness_names_every_failed_check() -> None:
    readiness = Readiness()
    readiness.add("a", lambda: (True, ""))
    assert readiness.reasons() == {}
    readiness.add("b", lambda: (False, "warming"))
    readiness.add("c", lambda: (False, "full"))
    assert readiness.reasons() == {"b": "warming", "c": "full"}
