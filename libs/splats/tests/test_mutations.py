"""Mutated files: each gives an error or a valid splat, within bounds of memory.

``SN17_FUZZ_CASES`` sets how many.
"""

from __future__ import annotations

import os
import resource

import numpy as np
from conftest_splats import FIELDS, make_splats
from sn17_splats import SplatError, read_splat, statistics, write_ply
from splat_mutations import mutations, seeds

CASES = int(os.environ.get("SN17_FUZZ_CASES", "10000"))


def test_mutated_files_are_refused_or_read() -> None:
    rng = np.random.default_rng(int(os.environ.get("SN17_FUZZ_SEED", "1")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}
    for number, data in enumerate(mutations(seeds(make_splats(300)), rng, CASES)):
        try:
            splats = read_splat(data)
        except SplatError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        for name in FIELDS[:-1]:
            array = getattr(splats, name)
            assert array.dtype == np.float32
            assert len(array) == len(splats) >= 1
        if number % 20 == 0:
            statistics(splats)
            assert len(read_splat(write_ply(splats))) == len(splats)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 1_000_000_000
    assert min(outcomes.values()) > CASES / 50, outcomes
