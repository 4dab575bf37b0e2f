"""The figures in README.md are those of its result files."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sn17_bench.recycling_page import find
from sn17_simulation.recycling.case import Fault

ROOT = Path(__file__).parents[2]


def result(name: str) -> Any:
    return json.loads((ROOT / "dev/bench/results" / f"{name}.json").read_text())


def postmortem() -> list[str]:
    found = result("postmortem")
    control = found["control"]
    day = {(row["setup"], row["validator"]): f"{row['accepted_a_day']:.0f}" for row in found["rows"]}
    return [
        f"falls from {control['as made']:.2f} to {control['one opacity for all']:.2f};"
        f" after sn17's repair it is {control['as made, repaired']:.2f}",
        f"a strict validator accepted {day['old', 'strict']} assets a day"
        f" of the old set-up and {day['sn17', 'strict']} of sn17,"
        f" a lenient one {day['old', 'lenient']} and {day['sn17', 'lenient']}",
    ]


def full_size() -> list[str]:
    found = result("full-size")
    tasks = found["tasks"]
    kills = "no OOM kill" if found["oom_kills"] == 0 else f"{found['oom_kills']} OOM kills"
    return [
        f"a leak of {found['leak_mib_per_generation']:.0f} MiB per generation:"
        f" peak {Decimal(str(found['peak_ratio'])) * 100:.1f} % of the limit,"
        f" {kills}, {tasks['accepted']} of {sum(tasks.values())} tasks accepted"
    ]


def by_leak(name: str) -> dict[float, dict[str, Any]]:
    """Arms of a comparison by their names, for each leak in MiB a generation."""
    return {point["leak_mib"]: {arm["arm"]: arm for arm in point["arms"]} for point in result(name)["points"]}


def times_of(arms: dict[str, Any], rival: str) -> str:
    """How much sn17 makes of what a rival makes."""
    return f"{arms['sn17']['accepted_per_hour'] / arms[rival]['accepted_per_hour']:.2f}"


def comparison() -> list[str]:
    points, beside = by_leak("comparison"), by_leak("comparison-self-exit")
    arms, quick = points[15.0], points[51.0]
    slow, medium, fast = (times_of(beside[leak], "self-exit after a job") for leak in (15.0, 51.0, 102.0))
    threshold, ours = arms["restart at a threshold (PM2)"], arms["sn17"]

    return [
        f"{threshold['restarts']} restarts at a threshold interrupted {threshold['killed_at_work']} jobs,"
        f" {sum(ours['recycles'].values())} recycles by sn17 interrupted {ours['killed_at_work']}.",
        f"Accepted per hour: {threshold['accepted_per_hour']:,} with the threshold,"
        f" {ours['accepted_per_hour']:,} with sn17, {arms['no leak']['accepted_per_hour']:,} without a leak",
        f"at 1.5 % sn17 made {times_of(arms, 'restart at a threshold (PM2)')} times what restarts"
        f" at a threshold made, at 5 % {times_of(quick, 'restart at a threshold (PM2)')} times,"
        f" and there {times_of(quick, 'self-exit after a job')} of what workers made that exit after a job",
        f"side by side once more: sn17 made {slow} times as much at 1.5 %,"
        f" {medium} at 5 % and {fast} at 10 %",
    ]


def sampling() -> list[str]:
    rows = {(row["steps"], row["guidance"]): row["accepted"] for row in result("sampling")["rows"]}
    before, after = rows["50/35", "9.0/4.0"], rows["60/50", "7.5/3.5"]
    assert before == after, "README.md says that both are the same"
    gain, interval = result("lanes")["assets"]["plain 25"]["accepted_minus_full"]
    runs = result("trellis-gpu")["runs"]
    seconds = [runs[f"{voxels} voxels, 60/50"]["fast"]["total"] for voxels in (12000, 20230)]
    return [
        f"{after * 100:.1f} % accepted before and after",
        f"25/25 did better than 60/50 by {gain * 100:.1f} ± {interval * 100:.1f} points",
        f"on an {result('trellis-gpu')['device'].removeprefix('NVIDIA ')}: {seconds[0]:.1f} s"
        f" for 12,000 voxels, {seconds[1]:.1f} s for 20,230",
    ]


def recycling() -> list[str]:
    cases = result("recycling")

    def of(fault: str, load: float, arm: str, figure: str) -> float:
        (found,) = (each for each in find(cases, Fault(fault), load)["arms"] if each["arm"] == arm)
        return float(found[figure][0])

    ours, alone = "sn17", "guard with swaps, no operator"
    lost = {
        arm: f"{of('leak 1.5 %', 1.0, arm, 'lost'):.0f}"
        for arm in (ours, alone, "self-exit after a job", "restart at a threshold (PM2)")
    }
    made = {arm: f"{of('leak 1.5 %', 1.0, arm, 'accepted_per_hour'):.0f}" for arm in (ours, alone)}
    card = {
        (load, arm): f"{of('one bad card', load, arm, 'accepted_per_hour'):.0f}"
        for load in (0.8, 1.0)
        for arm in (ours, alone)
    }
    return [
        f"costs {lost[ours]} device seconds per 1,000 jobs with sn17,"
        f" {lost['self-exit after a job']} with workers that exit after a job,"
        f" and {lost['restart at a threshold (PM2)']} with PM2's restarts",
        f"loses {lost[alone]} s and makes about as many assets ({made[alone]} against {made[ours]} an hour)",
        f"{card[0.8, ours]} accepted an hour against {card[0.8, alone]} at 80 % load"
        f" (at full load nothing is gained: {card[1.0, ours]} and {card[1.0, alone]})",
    ]


def coverage() -> list[str]:
    found = result("coverage")
    failed = found["tests"]["failed"]
    said = f" ({failed} tests failed in that run)" if failed else ""
    return [f"their own tests run: {found['percent']} % of lines and branches{said}"]


@pytest.mark.parametrize("sentences", [postmortem, full_size, comparison, sampling, recycling, coverage])
def test_the_readme_says_what_the_result_file_says(sentences: Any) -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    for sentence in sentences():
        assert sentence in text, f"README.md should say: {sentence}"
