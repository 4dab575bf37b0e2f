"""The measurement of swaps with the torch engine, on the processor: its parts, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")
swaps = pytest.importorskip("sn17_bench.swaps", reason="the benchmarks are not installed")


@pytest.mark.timeout(600)
def test_swaps_of_the_torch_engine_under_load(tmp_path: Path, write_checkpoint: Any, capsys: Any) -> None:
    checkpoint = tmp_path / "bench" / "text"
    write_checkpoint(checkpoint, "Text")
    described = json.loads((checkpoint / "pipeline.json").read_text())
    for sampler in ("sparse_structure_sampler", "slat_sampler"):
        described["args"][sampler]["params"] = {
            "steps": 2, "cfg_strength": 1.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0,
        }  # fmt: skip
    (checkpoint / "pipeline.json").write_text(json.dumps(described))
    out = tmp_path / "out.json"
    arguments = ["--backend", "torch", "--device", "cpu", "--checkpoint", str(checkpoint)]
    short = ["--preset", "checkpoint", "--threads", "1", "--swaps", "2", "--between", "2"]
    assert (
        swaps.main(
            [
                *arguments,
                *short,
                "--generations",
                "3",
                "--limit-gib",
                "6",
                "--prompt",
                "a red cube",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    found = json.loads(out.read_text())
    assert found["swaps"]["outcomes"] == {"done": 2}
    assert found["swaps"]["device_seconds_a_swap"] > 0
    assert found["swaps"]["jobs"]["outside"]["count"] >= 4
    assert found["swaps"]["jobs"]["during"]["count"] >= 1
    assert found["swaps"]["different_bytes"] == 0
    assert found["swaps"]["memory_gib"]["during"]["host_unreclaimable_max"] > 0
    assert "6 GiB cgroup limit" in found["limit"] or "could not be set" in found["limit"]
    assert found["generations"]["count"] >= 3
    assert "p95 during / outside" in capsys.readouterr().out
