"""Both ports against their own descriptions, by requests that schemathesis makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("SN17_LONG"), reason="long form: set SN17_LONG=1"),
]


@pytest.mark.parametrize("port", ["data", "ops"])
def test_answers_are_as_described(port: str, running: Any, tmp_path: Path) -> None:
    base = running.url if port == "data" else running.ops_url
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{base}/openapi.json",
            "--phases=fuzzing",
            "--max-examples=40",
            # A form can be well-formed and still hold no prompt or no picture.
            "--exclude-checks=positive_data_acceptance",
            "--header=Authorization: Bearer correct horse",
            "--exclude-path=/admin/v1/exit",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stdout
