"""Faults placed inside swaps: which process dies, in which phase, while keyed jobs arrive all the time."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2
import pynvml
import pytest
from nvml_fake import CARD, FakeNvml
from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleHow
from sn17_service import Service
from sn17_trellis.model_process.launcher import Handle, Launcher, new_launcher
from sn17_trellis.serve import connect, new_worker
from sn17_trellis.settings import WorkerSettings

LONG = bool(os.environ.get("SN17_LONG"))
PLACES = [(phase, victim) for phase in SwapPhase for victim in ("fresh", "old", "fork server")]
SWAP_DEADLINE = 120.0
FAULTS = 300 if LONG else len(PLACES)
SEEDS = 4


class Callers:
    """Ask for one keyed asset after the other until told to stop; each key again, whenever it was refused."""

    def __init__(self, live: Any, *, until_drained: bool = False) -> None:
        self._until_drained = until_drained
        self.answers: dict[str, bytes] = {}
        self.refused: Counter[str] = Counter()
        self.asked = 0
        self.different: list[str] = []
        self._live = live
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._expected: dict[int, bytes] = {}

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            key, seed = f"t/{number}", number % SEEDS
            self.asked += 1
            first = self._ask(key, seed)
            if first is None:
                return
            if self._until_drained:
                self.answers[key] = first
                continue
            if self._ask(key, seed) != first or self._expected.setdefault(seed, first) != first:
                self.different.append(key)
            self.answers[key] = first

    def _ask(self, key: str, seed: int) -> bytes | None:
        """The asset; None once the worker goes and the caller wants to hear that."""
        pause = threading.Event()
        while True:
            try:
                answer = self._live.data(
                    "POST",
                    "/generate",
                    data={"prompt": "a red cube", "seed": str(seed)},
                    headers={"idempotency-key": key},
                )
            except httpx2.ConnectError:
                if self._until_drained:
                    return None
                raise
            if answer.status_code == 200:
                content: bytes = answer.content
                return content
            self.refused[answer.json()["code"]] += 1
            if self._until_drained and answer.json()["code"] == "draining":
                return None
            pause.wait(0.02)


class Bench:
    """A worker on real sockets in this process, with real model processes, and a fault at a phase."""

    def __init__(self, live: Any) -> None:
        self.live = live
        self.keeper = live.worker.lives
        self.planned: tuple[SwapPhase, str] | None = None
        self.placed: Counter[tuple[str, str]] = Counter()

    def on_phase(self, phase: SwapPhase) -> None:
        if self.planned is None or self.planned[0] is not phase:
            return
        _, victim = self.planned
        self.planned = None
        if victim == "service":
            self.live.service.stop(0, "SIGTERM")
            return
        pid = self._victim(victim)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.placed[phase.value, victim] += 1

    def _victim(self, victim: str) -> int | None:
        keeper = self.keeper
        if victim == "fork server":
            return int(next(iter(keeper.run.helpers().values())))
        # After the switch the one that serves is the fresh one.
        lives = [life.handle.pid for life in keeper.run.alive if life.death is None]
        if victim == "old":
            return lives[0] if lives else None
        return lives[1] if len(lives) > 1 else None

    def swap(self, wait_until: Callable[..., None]) -> str:
        # Small assets are suspect, and on a slow machine three come in a row; a swap ends that.
        serving = ("ready", "busy", "degraded")
        wait_until(lambda: self.live.worker.state in serving, SWAP_DEADLINE)
        before = self.keeper.last_recycle
        self.keeper.recycle(self.keeper.life_id, RecycleHow.SWAP, "a test", verify=False)
        wait_until(
            lambda: self.keeper.last_recycle is not before and self.keeper.recycling is None, SWAP_DEADLINE
        )
        outcome: str = self.keeper.last_recycle.outcome
        return outcome


@pytest.fixture
def new_live(tmp_path: Path, worker_thread: Any, wait_until: Any) -> Iterator[Callable[..., Bench]]:
    """A worker that is ready; keywords as of ``new_worker``."""
    lives: list[Any] = []

    def make(**more: Any) -> Bench:
        settings = WorkerSettings(
            port=0,
            ops_port=0,
            admin_token_file=tmp_path / "token",
            spool_dir=tmp_path / "spool",
            worker_name="worker-1",
            procedural_max_gaussians=7_168,
            result_ttl_seconds=3600,
            results_kept=64,
            idle_swap_after_seconds=0,
            memory_source="process",
        )
        service = Service("trellis", "0", settings)
        hook: list[Callable[[SwapPhase], None]] = []
        worker = new_worker(
            service, settings, on_phase=lambda phase: hook[0](phase) if hook else None, **more
        )
        connect(service, settings, worker)
        live = worker_thread(service, settings, worker)
        made = Bench(live)
        hook.append(made.on_phase)
        lives.append(live)
        live.start()
        wait_until(lambda: live.state()["state"] == "ready")
        return made

    (tmp_path / "token").write_text("correct horse")
    yield make
    for live in lives:
        if live.exit_code is None:
            live.stop()


@pytest.fixture
def bench(new_live: Callable[..., Bench]) -> Bench:
    return new_live()


def record(name: str, **found: object) -> None:
    """Write a result file where a folder for it is named in SN17_RESULTS."""
    folder = os.environ.get("SN17_RESULTS")
    if folder is None:
        return
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, text=True
    )
    about = {
        "commit": commit.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    (Path(folder) / name).write_text(json.dumps(about | found, indent=1) + "\n")


def leftovers(bench: Bench) -> dict[str, Any]:
    spool = bench.live.worker.spool.folder
    return {
        "processes": len(bench.keeper.run.pids()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "shared memory": sorted(os.listdir("/dev/shm")),
        "temporary files": sorted(path.name for path in spool.glob(".*")),
        "threads": sum(thread.name.startswith("life-") for thread in threading.enumerate()),
    }


@pytest.mark.timeout(3000 if LONG else 600)
def test_no_key_is_lost_or_made_twice_whoever_dies_and_when(bench: Bench, wait_until: Any) -> None:
    rng = random.Random(17)
    places = PLACES * (FAULTS // len(PLACES) + 1)
    outcomes: Counter[str] = Counter()
    with Callers(bench.live) as callers:
        for phase, victim in places[:FAULTS]:
            bench.planned = (phase, victim)
            outcomes[bench.swap(wait_until)] += 1
            threading.Event().wait(rng.random() * 0.05)
    keys = len(callers.answers)
    made = bench.live.metric("sn17_generations_total", kind="task", outcome="ok")
    reruns = sum(
        bench.live.metric("sn17_jobs_rerun_total", cause=cause) or 0
        for cause in ("killed", "crashed", "replaced", "stalled")
    )
    twice = bench.live.metric("sn17_generations_total", kind="task", outcome="job_killed_model")
    print(
        f"\nplaced {dict(bench.placed)}\noutcomes {dict(outcomes)}; keys {keys}, made {made}, reruns {reruns}"
    )
    print(f"refused {dict(callers.refused)}; given up {twice}")
    by_phase = {
        phase.value: sum(n for (at, _), n in bench.placed.items() if at == phase) for phase in SwapPhase
    }
    record(
        "swap-faults.json",
        faults_asked=FAULTS,
        faults_placed=sum(bench.placed.values()),
        placed_by_phase=by_phase,
        placed={f"{at}: {victim}": count for (at, victim), count in sorted(bench.placed.items())},
        outcomes=outcomes,
        keys_asked=callers.asked,
        keys_lost=callers.asked - keys,
        completed=made,
        completed_twice=made - keys,
        different_bytes=len(callers.different),
        jobs_rerun=reruns,
        given_up_after_two_deaths=twice,
        refused=callers.refused,
    )
    assert not LONG or min(by_phase.values()) >= 30
    assert callers.different == [], "same seed, same bytes, in whatever life; a repeated get too"
    assert keys == callers.asked, "no key is lost"
    assert made == keys, "every key was completed exactly once"
    assert sum(bench.placed.values()) >= FAULTS * 0.8
    assert outcomes["done"] > 0
    wait_until(lambda: bench.live.state()["state"] == "ready")
    assert bench.live.state()["model_processes"] == 1


class Undead(Handle):
    """A process in uninterruptible sleep: killed, and still there. The real one behind it does end."""

    def __init__(self, real: Handle) -> None:
        super().__init__(real.pid, real.kill)

    def wait(self, seconds: float) -> bool:
        return False


class FirstNeverEnds:
    """Starts real model processes; what is told of the first one is that it does not end."""

    def __init__(self, inner: Launcher) -> None:
        self._inner = inner
        self._started = 0

    def start(self, life_id: str) -> tuple[Connection, Handle]:
        connection, handle = self._inner.start(life_id)
        self._started += 1
        return connection, Undead(handle) if self._started == 1 else handle

    def prepare(self) -> None:
        self._inner.prepare()

    def pids(self) -> tuple[int, ...]:
        return self._inner.pids()

    def tidy(self) -> None:
        self._inner.tidy()

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("how", list(RecycleHow))
def test_a_killed_process_that_does_not_end_says_device_suspect_and_the_worker_goes_on(
    how: RecycleHow, tmp_path: Path, new_live: Any, wait_until: Any
) -> None:
    bench = new_live(launcher=FirstNeverEnds(new_launcher(WorkerSettings(spool_dir=tmp_path / "spool"))))
    life = bench.keeper.life_id
    bench.keeper.recycle(life, how, "a test", verify=False)
    wait_until(lambda: bench.keeper.last_recycle is not None and bench.keeper.recycling is None)
    assert bench.keeper.last_recycle.outcome == "done"
    assert bench.live.metric("sn17_degraded", reason="device_suspect") == 1
    state = bench.live.state()
    assert state["life_id"] != life
    assert state["state"] == "degraded"
    assert "DeviceSuspect" in state["reason"]
    answer = bench.live.data("POST", "/generate", data={"prompt": "a red cube"})
    assert answer.status_code == 200, "until its pod is evicted it works on"
    bench.keeper.recycle(bench.keeper.life_id, RecycleHow.SWAP, "a test", verify=False)
    wait_until(
        lambda: bench.keeper.last_recycle.to_life == bench.keeper.life_id and not bench.keeper.recycling
    )
    assert bench.live.metric("sn17_degraded", reason="device_suspect") == 1, "another life does not clear it"


def test_the_first_start_tells_what_a_swap_will_take_of_the_device(bench: Bench) -> None:
    """Without it a swap seems to cost a whole start, and a worker that leaks replaces first."""
    measures = bench.keeper.meter.measures
    assert 0 < measures.warm_up_held < measures.device_seconds < measures.quickest_start
    terms = measures.terms(limit=1 << 34, refuse_ratio=0.88, job_seconds=1.0, device_free=None)
    assert terms is not None
    assert terms.device_seconds == measures.device_seconds


@pytest.mark.parametrize("how", [RecycleHow.SWAP, RecycleHow.REPLACE])
@pytest.mark.parametrize("canary", [True, False])
def test_a_life_that_need_not_prove_itself_runs_no_canary_and_the_last_one_holds(
    how: RecycleHow, canary: bool, bench: Bench, wait_until: Any
) -> None:
    def told() -> tuple[float | None, str]:
        lines = bench.live.ops("GET", "/metrics").text.splitlines()
        (info,) = (line for line in lines if line.startswith("sn17_canary_info"))
        return bench.live.metric("sn17_canary_drift_ratio"), info

    before, life = told(), bench.keeper.life_id
    runs = bench.live.metric("sn17_generations_total", kind="canary", outcome="ok")
    bench.keeper.recycle(life, how, "a test", verify=False, canary=canary)
    wait_until(lambda: bench.keeper.last_recycle is not None and bench.keeper.recycling is None)
    assert bench.keeper.last_recycle.outcome == "done"
    assert bench.keeper.life_id != life
    assert told() == before
    assert bench.live.metric("sn17_generations_total", kind="canary", outcome="ok") == runs + canary
    assert bench.live.data("POST", "/generate", data={"prompt": "a red cube"}).status_code == 200


def test_a_life_that_has_to_differ_runs_its_canary_whatever_is_asked(bench: Bench, wait_until: Any) -> None:
    bench.keeper.recycle(bench.keeper.life_id, RecycleHow.SWAP, "a test", verify=True, canary=False)
    wait_until(lambda: bench.keeper.last_recycle is not None and bench.keeper.recycling is None)
    assert bench.keeper.last_recycle.outcome == "same_output"


def test_a_device_that_takes_one_process_only_is_not_swapped_on(tmp_path: Path, new_live: Any) -> None:
    """A fresh process could not get onto it; the old one goes on, and the reason is said."""
    nvml = FakeNvml({CARD: pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS})
    bench = new_live(nvml=nvml)
    life = bench.keeper.current
    life.loaded = life.loaded.model_copy(update={"device": CARD.removeprefix("GPU-")})
    body = {"life_id": bench.keeper.life_id, "how": "swap", "reason": "a test"}
    refused = bench.live.ops("POST", "/admin/v1/recycle", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_room")
    assert "EXCLUSIVE_PROCESS" in refused.json()["detail"]
    assert "replace" in refused.json()["detail"]
    nvml.modes[CARD] = pynvml.NVML_COMPUTEMODE_DEFAULT
    assert bench.live.ops("POST", "/admin/v1/recycle", json=body).status_code == 202


@pytest.mark.parametrize("phase", list(SwapPhase))
def test_a_stop_in_any_phase_delivers_the_job_and_leaves_no_process(
    phase: SwapPhase, bench: Bench, wait_until: Any
) -> None:
    with Callers(bench.live, until_drained=True) as callers:
        wait_until(lambda: callers.answers)
        bench.planned = (phase, "service")
        bench.keeper.recycle(bench.keeper.life_id, RecycleHow.SWAP, "a test", verify=False)
        assert bench.live.join() == 0
    assert bench.keeper.run.pids() == ()
    assert callers.different == []
    assert set(callers.refused) <= {"draining"}
    assert bench.live.metric("sn17_generations_total", kind="task", outcome="ok") == len(callers.answers)


@pytest.mark.timeout(1200 if LONG else 200)
def test_swaps_leave_nothing_behind(bench: Bench, wait_until: Any) -> None:
    bench.swap(wait_until)
    # The old process is reaped, and its reader ends, a moment after the fresh one has taken over.
    wait_until(lambda: leftovers(bench)["threads"] == len(bench.keeper.run.alive) == 1, SWAP_DEADLINE)
    before, swaps = leftovers(bench), 50 if LONG else 8
    for _ in range(swaps):
        assert bench.swap(wait_until) == "done"
    wait_until(lambda: leftovers(bench) == before, SWAP_DEADLINE)
    record("swaps-leave-nothing.json", swaps=swaps, before=before, after=leftovers(bench))


def test_no_scrape_shows_the_new_life_beside_the_old_ones_memory(bench: Bench, wait_until: Any) -> None:
    """Scrapes go on during swaps; with the life's name changes what is told of it, at once."""
    seen: list[tuple[str, float]] = []
    stop = threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            text = bench.live.ops("GET", "/metrics").text
            lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
            (life,) = (name for name in lines if name.startswith("sn17_life_info"))
            seen.append((life, float(lines["sn17_model_processes"])))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    wait_until(lambda: seen)
    try:
        for _ in range(3):
            assert bench.swap(wait_until) == "done"
            wait_until(lambda: seen and bench.keeper.life_id in seen[-1][0])
    finally:
        stop.set()
        scraper.join()
    firsts = {}
    for life, processes in seen:
        firsts.setdefault(life, processes)
    assert len(firsts) == 4
    assert set(firsts.values()) == {1.0}, "a new life is named when the old process has been reaped"
    assert 2.0 in {processes for _, processes in seen}, "the test saw swaps at work"
