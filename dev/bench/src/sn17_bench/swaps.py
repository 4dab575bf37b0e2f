"""Swaps of the model process under continuous jobs: latency in and out of them, memory, device seconds.

    python -m sn17_bench.swaps [--swaps 20] [--json FILE]
    python -m sn17_bench.swaps --backend torch --device cuda --limit-gib 12 --json FILE
    python -m sn17_bench.swaps --backend reference --upstream DIR --checkpoint DIR --generations 200

Runs a real worker with its guard on. `procedural` (the default) holds an exclusive lock for jobs, warm-up and
canary, as long as a card would be busy (`--job-seconds` and so on). `torch` without `--checkpoint` makes one
of the released text-xlarge shapes with random values on the GPU (8 GB in the temporary folder). `reference`
runs Microsoft's own package from a checkout. Baseline of the same run: the jobs that no swap overlaps.
`--generations` goes on without swaps and shows whether memory grows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sn17_bench.stamp import stamp
from sn17_bench.swap_worker import (
    Job,
    Load,
    Sample,
    Watch,
    Worker,
    WorkerError,
    serve_command,
    started,
)

AIM = 1.15
"""Most that p95 during swaps may be of p95 outside of them."""
PHASES = ("spawn", "load", "warm-up", "canary", "switch", "reap")
GIB = 1024**3
Window = tuple[float, float]


def quantile(values: Sequence[float], share: float) -> float | None:
    """By the nearest rank; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * round(100 * share) // 100) - 1)]


def described(seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "count": len(seconds),
        "p50": quantile(seconds, 0.5),
        "p95": quantile(seconds, 0.95),
        "max": max(seconds, default=None),
    }


def by_window(jobs: Iterable[Job], windows: Sequence[Window]) -> dict[str, list[float]]:
    """Seconds of jobs that a swap overlaps, and of the others."""
    found: dict[str, list[float]] = {"during": [], "outside": []}
    for job in jobs:
        inside = any(job.began < end and job.ended > begin for begin, end in windows)
        found["during" if inside else "outside"].append(job.seconds)
    return found


def compared(jobs: Iterable[Job], windows: Sequence[Window]) -> dict[str, Any]:
    found = {name: described(seconds) for name, seconds in by_window(jobs, windows).items()}
    ratios = {
        f"{share}_ratio": found["during"][share] / found["outside"][share]
        for share in ("p50", "p95")
        if found["during"]["count"] and found["outside"]["count"]
    }
    return {**found, **ratios, "aim_p95_ratio": AIM}


def memory(samples: Sequence[Sample], windows: Sequence[Window]) -> dict[str, Any]:
    """Host and device in GiB before the first swap, while two lived (the extremes), after the last."""
    if not windows:
        parts = {"all": list(samples)}
    else:
        parts = {
            "before": [s for s in samples if s.at < windows[0][0]],
            "during": [s for s in samples if s.processes > 1],
            "after": [s for s in samples if s.at > windows[-1][1]],
        }
    out: dict[str, Any] = {}
    for name, part in parts.items():
        kinds = sorted({kind for s in part for kind in s.device})
        out[name] = {
            "host_unreclaimable_max": _gib(max((s.host for s in part if s.host), default=None)),
            **{
                f"device_{kind}_{'min' if kind == 'free' else 'max'}": _gib(
                    (min if kind == "free" else max)(s.device[kind] for s in part if kind in s.device)
                )
                for kind in kinds
            },
        }
    return out


def _gib(size: float | None) -> float | None:
    return None if size is None else round(size / GIB, 3)


def swap_once(worker: Worker, before: Any) -> tuple[str, Window]:
    """Ask for a swap and wait for its end; the outcome and when it was under way."""
    began = time.monotonic()
    answer = worker.recycle("swap")
    if answer.is_success:
        worker.wait("the swap ends", lambda: _ended(worker.state(), before))
        return worker.state()["last_recycle"]["outcome"], (began, time.monotonic())
    return f"{answer.json()['code']}: {answer.json()['detail']}", (began, began)


def _ended(state: dict[str, Any], before: Any) -> bool:
    return state["recycling"] is None and state["last_recycle"] != before


def swaps(
    worker: Worker, form: dict[str, str], count: int, between: int, seconds: float = math.inf
) -> dict[str, Any]:
    """``count`` swaps under load, ``between`` whole jobs before, between and after them.

    None begins more than ``seconds`` after the first: a machine may be lent for a limited time.
    """
    latest = time.monotonic() + seconds
    outcomes: Counter[str] = Counter()
    windows: list[Window] = []
    with Watch(worker) as watch, Load(worker, form) as load:

        def rest() -> None:
            known = len(load.jobs)
            worker.wait("jobs end", lambda: len(load.jobs) >= known + between or load.error)
            if load.error:
                raise WorkerError(f"the load ended: {load.error}")

        rest()
        for number in range(count):
            if time.monotonic() > latest:
                break
            outcome, window = swap_once(worker, worker.state()["last_recycle"])
            outcomes[outcome] += 1
            if window[1] > window[0]:
                windows.append(window)
            print(f"  swap {number + 1}: {outcome}, {window[1] - window[0]:.1f} s", file=sys.stderr)
            rest()
    metrics = worker.metrics()

    def metric(name: str, **labels: str) -> float:
        return metrics.get((name, tuple(sorted(labels.items()))), 0.0)

    done = metric("sn17_swap_device_seconds_count")
    return {
        "asked": sum(outcomes.values()),
        "outcomes": dict(outcomes),
        "jobs": compared(load.jobs, windows),
        "seconds": described([end - begin for begin, end in windows]),
        "device_seconds_a_swap": metric("sn17_swap_device_seconds_sum") / done if done else None,
        "phase_seconds": {
            phase: metric("sn17_swap_seconds_sum", phase=phase)
            / max(1.0, metric("sn17_swap_seconds_count", phase=phase))
            for phase in PHASES
        },
        "memory_gib": memory(watch.samples, windows),
        "different_bytes": load.different,
        "reruns": sum(value for (name, _), value in metrics.items() if name == "sn17_jobs_rerun_total"),
        "refused": dict(load.refused),
    }


def generations(worker: Worker, form: dict[str, str], count: int) -> dict[str, Any]:
    """So many jobs without a swap: memory of the model process and the device at ten points."""
    with Watch(worker) as watch, Load(worker, form) as load:
        worker.wait(f"{count} jobs end", lambda: len(load.jobs) >= count or load.error)
    points = [
        {
            "generation": sum(job.ended <= s.at for job in load.jobs),
            "model_gib": _gib(s.by_process.get("model")),
            "device_reserved_gib": _gib(s.device.get("reserved")),
        }
        for s in watch.samples[:: max(1, len(watch.samples) // 10)]
    ]
    return {
        "count": len(load.jobs),
        "error": load.error,
        "gaussians_mean": statistics.fmean(job.gaussians for job in load.jobs) if load.jobs else None,
        "seconds": described([job.seconds for job in load.jobs]),
        "points": points,
        "refused": dict(load.refused),
    }


def checkpoint(options: argparse.Namespace, folder: Path) -> Path | None:
    """The directory given, or one of the released shapes made on the GPU; a process of its own makes it."""
    if options.checkpoint or options.backend == "procedural":
        return options.checkpoint  # type: ignore[no-any-return]
    code = (
        "import sys; from pathlib import Path; from sn17_bench.trellis_checkpoint import make_checkpoints;"
        "make_checkpoints(Path(sys.argv[1]), hollow=True)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    return folder / "bench" / "text"


def environment(options: argparse.Namespace, text: Path | None) -> dict[str, str]:
    env = {
        "SN17_BACKEND": options.backend,
        "SN17_DEVICE": options.device,
        "SN17_IDLE_SWAP_AFTER_SECONDS": "0",
    }
    if text is not None:
        env |= {"SN17_TEXT_CHECKPOINT": str(text), "SN17_MODEL_ROOTS": json.dumps([str(text.parent.parent)])}
    if options.upstream:
        env["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(options.upstream), os.environ.get("PYTHONPATH")))
        )
    if options.threads:
        env["SN17_TORCH_THREADS"] = str(options.threads)
    if options.preset:
        env["SN17_PRESET"] = options.preset
    if options.backend == "procedural":
        env |= {
            "SN17_PROCEDURAL_JOB_SECONDS": str(options.job_seconds),
            "SN17_PROCEDURAL_WARMUP_SECONDS": str(options.warmup_seconds),
            "SN17_PROCEDURAL_LOAD_SECONDS": str(options.load_seconds),
            "SN17_PROCEDURAL_MAX_GAUSSIANS": "20000",
        }
    return env


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    note = folder / "limit"
    text = checkpoint(options, folder)
    env = environment(options, text)
    form = {"prompt": options.prompt}
    result: dict[str, Any] = {
        "backend": options.backend,
        **stamp(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "checkpoint": "text-xlarge shapes, random values" if text and not options.checkpoint else str(text),
    }
    with started(folder, serve_command(options.limit_gib, note), env) as worker:
        result["start_seconds"] = worker.wait_ready()
        result["limit"] = note.read_text() if note.exists() else "no memory limit"
        if options.swaps:
            result["swaps"] = swaps(worker, form, options.swaps, options.between, options.seconds)
        if options.generations:
            result["generations"] = generations(worker, form, options.generations)
    return result


def show(result: dict[str, Any]) -> None:
    for key in ("backend", "checkpoint", "limit", "start_seconds", "load", "commit"):
        print(f"{key.ljust(24)} {result[key]}")
    found = result.get("swaps")
    if found:
        print(f"{'outcomes'.ljust(24)} {found['outcomes']}")
        print("jobs              count     p50     p95     max")
        for name in ("outside", "during"):
            row = found["jobs"][name]
            cells = "".join(
                f"{row[key]:8.2f}" if row[key] is not None else "       -" for key in ("p50", "p95", "max")
            )
            print(f"{name.ljust(16)}{row['count']:7d}{cells}")
        print(
            f"{'p95 during / outside'.ljust(24)} {found['jobs'].get('p95_ratio', '-')} (aim: at most {AIM})"
        )
        for key in (
            "device_seconds_a_swap",
            "seconds",
            "phase_seconds",
            "memory_gib",
            "different_bytes",
            "reruns",
        ):
            print(f"{key.ljust(24)} {found[key]}")
    if "generations" in result:
        for point in result["generations"]["points"]:
            print(point)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=("procedural", "torch", "reference"), default="procedural")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--checkpoint", type=Path, help="directory of a text checkpoint")
    parser.add_argument(
        "--upstream", type=Path, help="checkout of Microsoft's package, for --backend reference"
    )
    parser.add_argument("--preset", help="steps and guidance, as SN17_PRESET")
    parser.add_argument("--threads", type=int, help="processor threads of torch")
    parser.add_argument("--prompt", default="a small red cube")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--between", type=int, default=4, help="whole jobs between two swaps")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no swap begins later than that")
    parser.add_argument("--generations", type=int, default=0, help="so many jobs without swaps afterwards")
    parser.add_argument("--limit-gib", type=int, help="memory limit of a cgroup for the worker")
    parser.add_argument("--job-seconds", type=float, default=3.0)
    parser.add_argument("--warmup-seconds", type=float, default=8.0)
    parser.add_argument("--load-seconds", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if options.upstream and options.backend != "reference":
        parser.error("--upstream goes with --backend reference")
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = measure(options, Path(folder))
        except WorkerError as error:
            print(error, file=sys.stderr)
            return 1
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    wrong = result.get("swaps", {}).get("different_bytes", 0)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
