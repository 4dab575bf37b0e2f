"""Ten thousand tasks through one miner among light fakes: its memory, and its own cost per task."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "services" / "miner" / "tests"))

from miner_harness import Harness

from sn17_bench.miner_day import overhead_of, quantile

VALIDATORS, WORKERS = 8, 4


async def memory(folder: Path, *, tasks: int, keep_tasks: int = 500, samples: int = 40) -> dict[str, Any]:
    """Resident anonymous memory (MiB) over the number of finished tasks. ``folder`` exists.

    keep_tasks: how many of them stay in the journal.
    """
    harness = Harness(folder)
    for _ in range(WORKERS):
        await harness.worker()
    for _ in range(VALIDATORS):
        # Cooldowns that are over at once: the miner is never idle.
        await harness.validator(cooldown=-5.0, throttle=0)
    try:
        process = await harness.process(
            max_tasks=tasks, log_level="WARNING", keep_tasks=keep_tasks, worker_poll_seconds=0.5
        )
        series: list[tuple[int, float]] = []
        step = max(1, tasks // samples)
        while process.returncode is None:
            done = sum(len(validator.judged) for validator in harness.validators)
            if done >= len(series) * step:
                series.append((done, resident(process.pid)))
            # What the fakes remember would grow without end; the miner is what is measured.
            for worker in harness.workers:
                del worker.asked[:-10]
                for key in list(worker.kept)[:-50]:
                    del worker.kept[key]
            for validator in harness.validators:
                del validator.submits[:-10], validator.pulls[:-10]
            del harness.fixer.received[:-5]
            try:
                async with asyncio.timeout(0.2):
                    await process.wait()
            except TimeoutError:
                pass
        repeated = max(max(worker.completed.values()) for worker in harness.workers)
        accepted = sum(len(validator.judged) for validator in harness.validators)
        kept = harness.tasks(limit=2000)
    finally:
        await harness.close()
    half = [point for point in series if point[0] >= tasks / 2 and point[1] > 0]
    overhead = [seconds for task in kept if (seconds := overhead_of(task)) is not None]
    return {
        "tasks": accepted,
        "second_completions": repeated - 1,
        "series_mib": [(done, round(mib, 1)) for done, mib in series],
        "mib_after_tenth": next((mib for done, mib in series if done >= tasks / 10), None),
        "mib_at_end": half[-1][1] if half else None,
        "growth_kib_per_1000_tasks": slope(half) * 1024 * 1000 if len(half) > 2 else None,
        "overhead_p50": quantile(overhead, 0.5),
        "overhead_p95": quantile(overhead, 0.95),
        "journal_rows_kept": len(kept),
    }


def resident(pid: int) -> float:
    """Anonymous resident memory of a process, MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def slope(points: list[tuple[int, float]]) -> float:
    """Least squares, MiB per task."""
    n = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / n for axis in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
