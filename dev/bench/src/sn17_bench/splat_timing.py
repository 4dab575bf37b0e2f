"""Timing and tables that the splat benchmarks share."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence


def median_ms(work: Callable[[], object], rounds: int = 9, budget_s: float = 6.0) -> float:
    """Median wall time in milliseconds after one unmeasured round; fewer rounds where they are long."""
    started = time.perf_counter()
    work()
    rounds = max(1, min(rounds, int(budget_s / max(time.perf_counter() - started, 1e-6))))
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3


def interleaved_ms(works: Mapping[str, Callable[[], object]], rounds: int = 9) -> dict[str, list[float]]:
    """Milliseconds of every work in each round: one after the other in turn, so that what disturbs the
    machine meanwhile disturbs all of them alike. One unmeasured round first."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                taken[name].append((time.perf_counter() - started) * 1e3)
    return taken


def ratio(taken: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over the rounds of the ratio of two works of the same round."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[base], strict=True))


def peak_mib(work: Callable[[], object]) -> float:
    """Most memory that Python and numpy held beyond what they held before, in MiB."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row) + " |")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
