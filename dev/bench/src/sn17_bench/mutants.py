"""One-line faults put into a copy of the cores: which of them do the tests notice?

    python -m sn17_bench.mutants [--only WORD]

Each is applied to a copy that stands before the package on the path, and the tests named beside it are run.
Exit status 1 where one survives that has no reason here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[4]
MINER: Final = "services/miner"
TRELLIS: Final = "services/trellis"


@dataclass(frozen=True, slots=True)
class Mutant:
    """``old`` becomes ``new`` in ``file`` of ``package``; ``reason`` says why it may survive."""

    package: str
    file: str
    old: str
    new: str
    tests: str
    reason: str = ""


_GATE: Final = "services/miner/tests/test_miner_gate.py"
_PARTS: Final = "services/miner/tests/test_miner_parts.py"
_SCHEDULER: Final = "services/miner/tests/test_miner_scheduler.py"
_GLUE: Final = "services/trellis/tests/engine/test_glue.py services/trellis/tests/engine/test_fast.py"

MUTANTS: Final = (
    Mutant(MINER, "core/gate.py", "rate * (1.0 - chance) * penalty", "rate * penalty", _GATE),
    Mutant(MINER, "core/gate.py", "cost / (1.0 + DUEL_WORTH + cost)", "cost / (1.0 + cost)", _GATE),
    Mutant(MINER, "core/gate.py", "held_back + 1 >= every", "False", _GATE),
    Mutant(MINER, "core/gate.py", "better = hopeless and recent >= mark", "better = False", _GATE),
    Mutant(MINER, "core/gate.py", "seconds = cycle + penalty *", "seconds = cycle + 0 *", _GATE),
    Mutant(MINER, "core/evidence.py", "self.mean < chance and", "True and", _GATE),
    Mutant(MINER, "core/evidence.py", "SURE: Final = 4.5", "SURE: Final = 0.5", _GATE),
    Mutant(MINER, "core/learning.py", "+ late + self.idle", "+ late", _GATE),
    Mutant(MINER, "core/verdict.py", "standing.accepted == 0 or", "False or", _PARTS),
    Mutant(MINER, "core/verdict.py", "feedback.task_fidelity_score > 0", "True", _PARTS),
    Mutant(MINER, "core/scheduler.py", "+ self.policy.cooldown_margin", "", _SCHEDULER),
    Mutant(MINER, "core/scheduler.py", "lane.failures, lane.cooldown_until = 0, until",
           "lane.cooldown_until = until", _SCHEDULER),
    Mutant(TRELLIS, "engine/pipeline.py", "out * out.new_tensor(self.normalization.std) +", "out +", _GLUE),
    Mutant(TRELLIS, "engine/pipeline.py", "self.decoder(latent) > 0", "self.decoder(latent) > 0.5", _GLUE),
    Mutant(TRELLIS, "engine/pipeline.py", "noise = self.latent_noise(generator, voxels)\n            latents",
           "noise = self.latent_noise(torch.Generator().manual_seed(request.seed), voxels)\n"
           "            latents", _GLUE),
    Mutant(TRELLIS, "engine/fast.py", "or self._table_key != params", "", _GLUE),
    Mutant(TRELLIS, "engine/fast.py", "key.copy_(new_key)", "pass", _GLUE),
    Mutant(TRELLIS, "engine/sampler.py", "low <= t <= high", "low < t < high", _GLUE),
    Mutant(TRELLIS, "engine/gaussians.py", "fn.layer_norm(h.float(), h.shape[-1:])",
           "fn.layer_norm(h, h.shape[-1:]).float()", _GLUE),
    Mutant(TRELLIS, "engine/gaussians.py", "torch.exp(self.scaling + math.log(cfg.scaling_bias))",
           "torch.exp(self.scaling)", _GLUE),
    Mutant(TRELLIS, "engine/conditioning.py", "> 0.8 * 255", ">= 0.8 * 255", _GLUE),
)  # fmt: skip


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether its tests stay green. Raises ValueError where the line is no longer there once."""
    copy = folder / "src"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / mutant.package / "src", copy)
    (package,) = (each for each in copy.iterdir() if (each / "__init__.py").exists())
    path = package / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}: {mutant.old!r} stands there {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="mutants of files that hold this word")
    options = parser.parse_args()
    unexplained = 0
    with tempfile.TemporaryDirectory() as folder:
        for mutant in MUTANTS:
            if options.only not in mutant.file:
                continue
            alive = survives(mutant, Path(folder))
            unexplained += alive and not mutant.reason
            word = "survives" if alive else "killed"
            print(f"{word:9} {mutant.file:24} {mutant.old[:60]!r} {mutant.reason}", flush=True)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
