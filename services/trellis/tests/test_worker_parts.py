"""The pure and small parts of the worker: quality, canaries, spool, thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_contract.metrics import CANARY_DRIFT_THRESHOLD, GenerationKind
from sn17_service import MemoryReading, return_heap
from sn17_service.memory import ProcessMemory
from sn17_splats import Splats
from sn17_trellis.backend import Generation, Job
from sn17_trellis.canary import CanaryBook
from sn17_trellis.encode import UnusableOutput, encode
from sn17_trellis.faults import FaultyBackend
from sn17_trellis.procedural import ProceduralBackend
from sn17_trellis.quality import Finding, Quality, drift, measure
from sn17_trellis.settings import Faults
from sn17_trellis.spool import Spool
from sn17_trellis.thread import WorkThread

LIMIT = 1000


def asset(n: int = 8_000, seed: int = 0) -> Splats:
    rng = np.random.default_rng(seed)
    return Splats(
        positions=rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32),
        log_scales=rng.normal(-5, 0.3, (n, 3)).astype(np.float32),
        rotations=rng.normal(size=(n, 4)).astype(np.float32),
        opacity_logits=rng.normal(3.9, 2.7, n).astype(np.float32),
        f_dc=rng.normal(0, 0.5, (n, 3)).astype(np.float32),
    )


# --- quality and canary -----------------------------------------------------------------------------


def test_a_healthy_asset_has_no_finding_and_no_drift_from_itself() -> None:
    quality = measure(asset())
    assert quality.findings == ()
    assert quality.usable
    assert drift(quality, quality) == 0


@pytest.mark.parametrize("column", ["positions", "log_scales", "rotations", "f_dc", "opacity_logits"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_except_an_infinite_opacity(column: str, value: float) -> None:
    values = np.array(getattr(asset(), column))
    values[17] = value
    quality = measure(asset().replace(**{column: values}))
    opaque = column == "opacity_logits" and not np.isnan(value)
    assert (Finding.NON_FINITE in quality.findings) == (not opaque)
    assert all(np.isfinite(list(quality.statistics.values())))


def test_few_and_transparent_gaussians_are_found() -> None:
    assert measure(asset(6_999)).findings == (Finding.FEW_GAUSSIANS,)
    faded = asset().replace(opacity_logits=np.full(8_000, -8.0))
    assert measure(faded).findings == (Finding.TRANSPARENT,)
    assert measure(faded).usable


def test_an_output_of_nothing_or_of_nan_is_unusable() -> None:
    broken = asset().replace(positions=np.full((8_000, 3), np.nan))
    assert not measure(broken).usable
    for bad in (broken, asset(1).select(slice(0, 0)), b"no ply"):
        with pytest.raises(UnusableOutput):
            encode(Generation(bad, 0, {}))


@given(st.floats(0.5, 2.0))
@settings(max_examples=50, deadline=None)
def test_a_count_off_by_a_fifth_is_the_mark(factor: float) -> None:
    first = measure(asset())
    now = Quality(round(first.gaussians * factor), 1.0, first.statistics)
    off = abs(now.gaussians / first.gaussians - 1)
    assert drift(now, first) == pytest.approx(off)
    assert (drift(now, first) > CANARY_DRIFT_THRESHOLD) == (off > 0.20)


def test_another_colour_place_or_opacity_is_drift() -> None:
    first = measure(asset())
    assert drift(measure(asset(seed=1)), first) <= CANARY_DRIFT_THRESHOLD
    assert drift(measure(asset().replace(f_dc=asset().f_dc + 1)), first) > CANARY_DRIFT_THRESHOLD
    assert drift(measure(asset().replace(positions=asset().positions * 2)), first) > CANARY_DRIFT_THRESHOLD
    assert (
        drift(measure(asset().replace(opacity_logits=asset().opacity_logits - 2)), first)
        > CANARY_DRIFT_THRESHOLD
    )
    assert drift(Quality(8_000, 0.0, {}), first) == np.inf


def test_the_first_canary_becomes_the_baseline_and_stays_it(tmp_path: Path) -> None:
    book = CanaryBook(tmp_path)
    assert book.judge("a", measure(asset()), "d1").first
    drifted = measure(asset(5_000 * 8 // 5 // 2))
    verdict = CanaryBook(tmp_path).judge("a", drifted, "d2")
    assert not verdict.first
    assert not verdict.passed
    assert verdict.drift == pytest.approx(0.5)
    assert not verdict.same_bytes
    back = book.judge("a", measure(asset()), "d1")
    assert back.passed
    assert back.same_bytes
    assert book.judge("another checkpoint", drifted, "d2").first


def test_a_bad_first_canary_fails_and_is_not_kept(tmp_path: Path) -> None:
    book = CanaryBook(tmp_path)
    faded = measure(asset().replace(opacity_logits=np.full(8_000, -9.0)))
    assert not book.judge("a", faded, "d").passed
    assert book.judge("a", measure(asset()), "d").first


def test_a_damaged_baseline_is_replaced(tmp_path: Path) -> None:
    book = CanaryBook(tmp_path)
    book.judge("a", measure(asset()), "d")
    (path,) = tmp_path.glob("*.json")
    for content in ("", "[]", '{"gaussians": 1}', '{"statistics": []}'):
        path.write_text(content)
        assert book.judge("a", measure(asset()), "d").first


# --- spool ------------------------------------------------------------------------------------------


def spool(folder: Path, now: list[float], keep: int = 2) -> Spool:
    return Spool(folder, ttl_seconds=600, keep=keep, clock=lambda: now[0])


def put(target: Spool, key: str | None, content: bytes = b"ply") -> Any:
    return target.store(content, key=key, fingerprint="f", seed=1, gaussians=2)


def test_a_keyed_result_survives_a_restart_until_it_is_too_old(tmp_path: Path) -> None:
    now = [0.0]
    put(spool(tmp_path, now), "task/1", b"content")
    again = spool(tmp_path, now)
    found = again.find("task/1")
    assert found is not None
    assert found.path.read_bytes() == b"content"
    assert (found.seed, found.gaussians, found.fingerprint) == (1, 2, "f")
    now[0] = 601
    assert again.find("task/1") is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_results_are_kept(tmp_path: Path) -> None:
    now = [0.0]
    target = spool(tmp_path, now)
    for key in ("a", "b", "c"):
        now[0] += 1
        put(target, key)
    assert target.find("a") is None
    assert target.find("b") is not None
    assert target.find("c") is not None
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("restarted", [False, True])
def test_a_result_is_there_although_the_clock_was_set_back(tmp_path: Path, restarted: bool) -> None:
    """Found by fault injection: a full spool took each new result for its oldest, and dropped it."""
    now = [1000.0]
    target = spool(tmp_path, now)
    for key in ("a", "b"):
        now[0] += 1
        put(target, key)
    now[0] -= 30
    if restarted:
        target = spool(tmp_path, now)
    for key, others in (("c", "b"), ("d", "c"), ("b", "d")):
        now[0] += 1
        stored = put(target, key)
        assert stored.path.read_bytes() == b"ply"
        assert target.find(key) == stored
        assert target.find(others) is not None
    assert len(list(tmp_path.iterdir())) == 4


def test_a_result_that_is_made_again_is_the_newest(tmp_path: Path) -> None:
    target = spool(tmp_path, [0.0])
    for key in ("a", "b", "a", "c"):
        put(target, key)
    assert target.find("a") is not None
    assert target.find("b") is None


def test_a_result_without_a_key_is_gone_once_opened(tmp_path: Path) -> None:
    stored = put(spool(tmp_path, [0.0]), None, b"once")
    with stored.path.open("rb") as reader:
        stored.discard()
        assert reader.read() == b"once"
    assert list(tmp_path.iterdir()) == []


def test_leftovers_halves_and_junk_are_swept_at_the_start(tmp_path: Path) -> None:
    target = spool(tmp_path, [0.0])
    put(target, None)
    kept, cut = put(target, "kept"), put(target, "cut")
    cut.path.write_bytes(b"p")
    (tmp_path / "junk.json").write_text("{")
    (tmp_path / "foreign.json").write_text('{"path": "x"}')
    (tmp_path / ".half.ply.123").write_bytes(b"half")
    again = spool(tmp_path, [0.0])
    assert again.find("kept") is not None
    assert again.find("cut") is None
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".ply"]
    assert kept.path.exists()
    assert again.remove("kept")
    assert not again.remove("kept")


def test_a_hostile_key_is_only_a_name(tmp_path: Path) -> None:
    target = spool(tmp_path / "results", [0.0])
    put(target, "../../etc/passwd")
    assert target.find("../../etc/passwd") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


# --- faults -----------------------------------------------------------------------------------------


def run_task(backend: FaultyBackend) -> Generation:
    return backend.generate(
        Job(GenerationKind.TASK, 1, prompt="a red sphere"), lambda *_: None, lambda: False
    )


def test_gaussians_decay_with_memory_as_the_design_saw_it() -> None:
    ratio = [0.0]
    backend = FaultyBackend(
        ProceduralBackend(400_000),
        Faults(gaussian_decay=True),
        lambda: MemoryReading(int(ratio[0] * LIMIT), 0, LIMIT, {}),
    )
    healthy = run_task(backend).gaussians
    counts = []
    for ratio[0] in (0.4, 0.5, 0.6, 0.7, 0.8, 0.95):
        counts.append(run_task(backend).gaussians)
    assert counts[0] == healthy
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == counts[-2] == pytest.approx(healthy / 8, abs=1)


def test_a_leak_is_real_and_only_a_cache_is_freed() -> None:
    def growth(faults: Faults) -> tuple[int, int]:
        backend = FaultyBackend(ProceduralBackend(20_000), faults, lambda: None)
        run_task(FaultyBackend(ProceduralBackend(20_000), Faults(), lambda: None))
        return_heap()
        before = ProcessMemory().read().unreclaimable
        for _ in range(4):
            run_task(backend)
        leaked = ProcessMemory().read().unreclaimable - before
        backend.cleanup()
        return_heap()
        return leaked, leaked - (ProcessMemory().read().unreclaimable - before)

    mib = 1024 * 1024
    leaked, freed = growth(Faults(leak_mib_per_generation=16))
    assert leaked > 48 * mib
    assert freed < 16 * mib
    leaked, freed = growth(Faults(leak_mib_per_generation=16, leak_is_cache=True))
    assert leaked > 48 * mib
    assert freed > 48 * mib


# --- thread -----------------------------------------------------------------------------------------


def test_jobs_go_before_calls_and_a_close_answers_what_is_left() -> None:
    order: list[str] = []
    gate = threading.Event()
    busy = threading.Event()

    def work(job: str) -> None:
        order.append(job)
        busy.set()
        gate.wait(10)

    thread: WorkThread[str] = WorkThread(
        start=lambda: None,
        work=work,
        idle=lambda: None,
        close=lambda: order.append("closed"),
        failed=lambda error: order.append(f"failed {error}"),
        tick_seconds=0.01,
    )
    thread.start()
    assert thread.offer("one")
    assert busy.wait(10)
    called = thread.call(lambda: order.append("call"))
    assert thread.offer("two")
    assert not thread.offer("three")
    gate.set()
    called.result(10)
    assert thread.close(10)
    assert order == ["one", "two", "call", "closed"]
    assert not thread.offer("late")
    with pytest.raises(RuntimeError):
        thread.call(lambda: None).result(1)


def test_a_thread_that_breaks_says_so() -> None:
    failed = threading.Event()

    def start() -> None:
        raise RuntimeError("no weights")

    thread: WorkThread[str] = WorkThread(
        start=start,
        work=lambda _: None,
        idle=lambda: None,
        close=lambda: None,
        failed=lambda _: failed.set(),
        tick_seconds=1,
    )
    thread.start()
    assert failed.wait(10)
    with pytest.raises(RuntimeError):
        thread.call(lambda: None).result(1)
