"""The fixer's benchmark: what its policies do to damaged opacities, and how long its stages take.

python -m sn17_bench.fixer quality [--scenes robocop,plant] [--size 518] [--json FILE]
python -m sn17_bench.fixer speed [--counts 50000,400000] [--json FILE]

Real splats are used where they are at hand (SN17_SPLATS names their folder), procedural ones always.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("quality", "speed"))
    parser.add_argument("--scenes", help="quality: which scenes, by name")
    parser.add_argument("--size", type=int, default=518, help="quality: pixels of a view's side")
    parser.add_argument("--counts", help="speed: how many gaussians")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # before numpy is imported
    import fixer_quality
    import fixer_speed

    result = (fixer_quality if arguments.part == "quality" else fixer_speed).run(arguments)
    if arguments.json:
        dated = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": "2 cores",
            **result,
        }
        arguments.json.write_text(json.dumps(dated, indent=1) + "\n")


if __name__ == "__main__":
    main()
