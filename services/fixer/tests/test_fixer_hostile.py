"""Mutated files: each gives an error or a splat, within bounds of time and memory.

``SN17_FUZZ_CASES`` sets how many (the long form runs 100,000).
"""

from __future__ import annotations

import os
import resource

import numpy as np
from fixer_splats import shell
from sn17_fixer.model import PolicyName
from sn17_fixer.policy import FixOptions
from sn17_fixer.render.preview import preview_png
from sn17_fixer.report import FULL_REPORT, full_report, header_report
from sn17_fixer.work import Format, Stopwatch, run_fix, unpacked_bytes
from sn17_splats import Limits, SplatError, read_splat, write_ply
from sn17_splats.ply import header_bytes
from splat_mutations import mutations, seeds

CASES = int(os.environ.get("SN17_FUZZ_CASES", "1500"))
WATCH = Stopwatch(lambda stage, seconds: None)


def test_mutated_files_are_refused_or_fixed() -> None:
    rng = np.random.default_rng(int(os.environ.get("SN17_FUZZ_SEED", "5")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"fixed": 0, "refused": 0}
    policies = list(PolicyName)
    for number, data in enumerate(mutations(seeds(shell(n=160)), rng, CASES)):
        options = FixOptions(policy=policies[number % 3], place=number % 2 == 0)
        output = Format.PLY if number % 5 == 0 else Format.SPZ
        try:
            unpacked_bytes(data, Limits())
            fixed, asset = run_fix(data, options, output, Limits(), WATCH)
        except SplatError:
            outcomes["refused"] += 1
            continue
        outcomes["fixed"] += 1
        assert len(read_splat(asset)) == len(fixed.splats)
        assert len(header_report(fixed)) <= 4096
        FULL_REPORT.dump_json(full_report(fixed, options.policy))
        if number % 50 == 0:
            preview_png(fixed.splats, size=32)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 1_000_000_000
    assert min(outcomes.values()) > CASES / 50, outcomes


def test_random_floats_under_a_valid_header() -> None:
    """Every bit pattern a float can have, in every column."""
    rng = np.random.default_rng(9)
    head = header_bytes(7040, normals=True)
    for seed in range(3):
        body = rng.integers(0, 256, 7040 * 68, dtype=np.uint8).tobytes()
        for policy in (PolicyName.MEASURED, PolicyName.PHASE1):
            try:
                fixed, _ = run_fix(
                    head + body, FixOptions(policy=policy, seed=seed), Format.PLY, Limits(), WATCH
                )
            except SplatError:
                continue
            assert np.isfinite(fixed.splats.positions).all()
            assert write_ply(fixed.splats)
