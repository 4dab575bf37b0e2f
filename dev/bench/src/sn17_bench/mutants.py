"""One-line faults put into a copy of the cores: which of them do the tests notice?

    python -m sn17_bench.mutants [--only CORE] [--json FILE] [--again]

Each is applied to a copy that stands before the package on the path, and its core's tests are run until the
first failure; without a fault they must pass. Exit status 1 where one survives that has no reason in
dev/bench/survivors.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sn17_bench.mutant_list import MUTANTS, Core, Mutant

ROOT: Final = Path(__file__).resolve().parents[4]
SURVIVORS: Final = ROOT / "dev" / "bench" / "survivors.json"
_LIBRARIES: Final = (
    "pytest",
    "hypothesis.stateful",
    "numpy",
    "pydantic_settings",
    "aiohttp.web",
    "httpx2",
    "kubernetes.aio.client",
    "prometheus_client",
    "torch",
)
"""Loaded once: each run is a fork. None of them is ours, so that a copy is found first."""


def reasons() -> dict[str, str]:
    """Why a mutant may survive, by its key."""
    found: dict[str, str] = json.loads(SURVIVORS.read_text())
    return found


def source(mutant: Mutant) -> Path:
    """The file that it changes."""
    return ROOT / mutant.core.folder / "src" / mutant.core.package / mutant.file


def changed(mutant: Mutant) -> str:
    """The file's text with the fault. Raises ValueError where the line does not stand there once."""
    text = source(mutant).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}: {mutant.old!r} stands there {text.count(mutant.old)} times")
    return text.replace(mutant.old, mutant.new)


def passes(core: Core, folder: Path, mutant: Mutant | None) -> bool:
    """Whether the core's tests pass with the fault, or without any."""
    copy = folder / "src"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / core.folder / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        (copy / core.package / mutant.file).write_text(changed(mutant))
    return _forked(core, copy, folder / "output") == 0


def _forked(core: Core, copy: Path, output: Path) -> int:
    """Exit status of pytest, run in a fork that imports the copy."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(ROOT)
        _forget_ours()
        sys.path.insert(0, str(copy))
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(copy)
        pytest = importlib.import_module("pytest")
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *shlex.split(core.tests)]))
    finally:
        os._exit(status)


def _forget_ours() -> None:
    """What a test run around this one imported of ours, packages and tests, would hide the copy."""
    libraries = Path(sys.prefix)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not file or Path(file).is_relative_to(libraries):
            continue
        if Path(file).is_relative_to(ROOT):
            del sys.modules[name]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="one core: gate, verdict, scheduler, planner, ...")
    parser.add_argument("--json", type=Path, help="rows of cores that are not run stay as they are")
    parser.add_argument("--again", action="store_true", help="only what FILE calls a survivor, or lacks")
    options = parser.parse_args()
    for library in _LIBRARIES:
        importlib.import_module(library)
    wanted = [mutant for mutant in MUTANTS if options.only in mutant.core.name]
    found: dict[str, Any] = {}
    if options.json is not None and options.json.exists():
        found = json.loads(options.json.read_text())["mutants"]
    if options.again:
        wanted = [mutant for mutant in wanted if found.get(mutant.key, {"survives": True})["survives"]]
    known, unexplained, tested = reasons(), 0, set()
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mutant in wanted:
            core = mutant.core
            if core not in tested and not passes(core, folder, None):
                print((folder / "output").read_text())
                print(f"{core.name}: the tests fail without a fault", file=sys.stderr)
                return 2
            tested.add(core)
            started = time.monotonic()
            alive = passes(core, folder, mutant)
            why = known.get(mutant.key, "")
            unexplained += alive and not why
            word = "survives" if alive else "killed"
            seconds = time.monotonic() - started
            print(
                f"{word:9} {seconds:5.1f} s  {core.name:10} {mutant.file:22} {mutant.old[:60]!r} {why}",
                flush=True,
            )
            found[mutant.key] = {"core": core.name, "survives": alive, "commit": commit}
            if options.json is not None:
                text = {"commit": commit, "date": datetime.now(UTC).date().isoformat(), "mutants": found}
                options.json.write_text(json.dumps(text, indent=1) + "\n")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
