"""The real stack on the local validators for a while: processes up, figures from journal and ledger.

    python -m sn17_bench.local_run [--seconds 150] [--threshold 0.9] [--json FILE]

Validators in fast motion, procedural workers, the fixer and the miner as processes of their own, no faults.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from sn17_contract.tasks import Outcome, TaskState
from sn17_http import own_client
from sn17_miner.core.records import Task
from sn17_miner.journal.journal import Journal
from sn17_simulation.calibration import Live

from sn17_bench.miner_day import Process


@dataclass(frozen=True, slots=True)
class Setup:
    """How many of what, and environment of the four services on top."""

    validators: int = 8
    workers: int = 1
    time_scale: float = 0.05
    seed: int = 17
    devnet: Mapping[str, Any] = field(default_factory=dict)
    worker: Mapping[str, Any] = field(default_factory=dict)
    fixer: Mapping[str, Any] = field(default_factory=dict)
    miner: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Tasks of the miner's journal with their stories, and the validators' own record."""

    seconds: float
    tasks: list[Task]
    stories: dict[int, list[str]]
    ledger: dict[str, Any]


def run(folder: Path, setup: Setup, seconds: float) -> Outcomes:
    """Everything up, ``seconds`` of work, everything down."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stop:

        def add(name: str, module: tuple[str, ...], env: Mapping[str, Any]) -> Process:
            process = Process(name, module, folder, dict(env))
            stop.callback(process.end)
            process.start()
            return process

        add("validators", ("sn17_devnet",), _devnet(folder, setup))
        told = json.loads((folder / "devnet" / "devnet.json").read_text())
        workers = [
            add(f"w{n}", ("sn17_trellis", "serve"), _worker(folder, setup, n)) for n in range(setup.workers)
        ]
        fixer = add("fixer", ("sn17_fixer",), setup.fixer)
        miner = add("miner", ("sn17_miner",), _miner(folder, setup, told, workers, fixer))
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        with own_client(timeout=30.0) as client:
            ledger = client.get(told["ledger_url"]).json()
        miner.end()
    journal = Journal(folder / "miner" / "journal.sqlite", readonly=True)
    tasks = [t for t in journal.tasks(limit=100_000) if t.state is TaskState.DONE]
    stories = {t.n: [f"{e.event}: {e.detail}" for e in journal.events(t.n)] for t in tasks}
    journal.close()
    return Outcomes(took, tasks, stories, ledger)


def figures(setup: Setup, outcomes: Outcomes) -> Live:
    """What the world in virtual time is held against."""
    tasks = outcomes.tasks
    judged = [t for t in tasks if t.outcome in (Outcome.ACCEPTED, Outcome.REJECTED)]
    pulls: dict[str, list[float]] = {}
    for task in tasks:
        pulls.setdefault(task.validator, []).append(task.pulled_at)
    cycles = [later - at for times in pulls.values() for at, later in pairwise(sorted(times))]
    made = [a.finished_at - a.started_at for t in tasks for a in t.attempts[:1] if a.finished_at]
    return Live(
        time_scale=setup.time_scale,
        validators=setup.validators,
        workers=setup.workers,
        seconds=outcomes.seconds,
        tasks=len(tasks),
        handed_in=sum(t.submitted_attempt is not None for t in tasks),
        idle=median([t.idle for t in tasks if t.idle]),
        cycle=fmean(cycles),
        acceptance=sum(t.outcome == Outcome.ACCEPTED for t in judged) / max(1, len(judged)),
        generation=fmean(made),
        delivery=fmean([t.finished_at - t.pulled_at for t in judged if t.finished_at]),
        violations=sum(sum(v["violations"].values()) for v in outcomes.ledger["validators"]),
    )


def _devnet(folder: Path, setup: Setup) -> dict[str, Any]:
    return {
        "SN17_VALIDATORS": setup.validators,
        "SN17_STATE_DIR": folder / "devnet",
        "SN17_TIME_SCALE": setup.time_scale,
        "SN17_SEED": setup.seed,
        "SN17_IMAGE_RATIO": 0,
        **setup.devnet,
    }


def _worker(folder: Path, setup: Setup, number: int) -> dict[str, Any]:
    return {
        "SN17_WORKER_NAME": f"w{number}",
        "SN17_SPOOL_DIR": folder / f"w{number}",
        "SN17_PROCEDURAL_MAX_GAUSSIANS": 40_000,
        "SN17_CANARY_EVERY": 0,
        **setup.worker,
    }


def _miner(
    folder: Path, setup: Setup, told: Mapping[str, Any], workers: list[Process], fixer: Process
) -> dict[str, Any]:
    return {
        "SN17_HOTKEY_FILE": folder / "devnet" / "miner_hotkey.json",
        "SN17_CHAIN__SOURCE": "http",
        "SN17_CHAIN__URL": told["snapshot_url"],
        "SN17_WORKERS": ",".join(worker.url for worker in workers),
        "SN17_FIXER_URL": fixer.url,
        "SN17_STATE_DIR": folder / "miner",
        "SN17_TIME_SCALE": setup.time_scale,
        "SN17_TASK_DEADLINE_SECONDS": 60,
        "SN17_WORKER_POLL_SECONDS": 0.25,
        **setup.miner,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--threshold", type=float, default=0.9, help="score from which validators accept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setup = Setup(devnet={"SN17_QUALITY_THRESHOLD": options.threshold})
    with tempfile.TemporaryDirectory() as folder:
        live = asdict(figures(setup, run(Path(folder), setup, options.seconds)))
    for name, value in live.items():
        print(f"{name:12} {value:g}")
    if options.json:
        options.json.write_text(json.dumps(live, indent=1) + "\n")


if __name__ == "__main__":
    main()
