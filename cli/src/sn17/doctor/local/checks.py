"""The checks of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sn17_contract.http import FIXER_PORT, OPS_PORT, TRELLIS_PORT

from sn17.doctor.local.files import judge_hotkey, judge_models
from sn17.doctor.local.machine import judge_clock, judge_disk, judge_ports, judge_python
from sn17.doctor.local.probes import TORCH_SECONDS, Machine
from sn17.doctor.local.proxy import judge_proxies
from sn17.doctor.local.torch import judge_torch
from sn17.doctor.model import Check

SERVICE_PORTS: Final = (FIXER_PORT, OPS_PORT, TRELLIS_PORT)
READING_SECONDS: Final = 300.0
"""For some twenty gigabytes of weights."""


def local_checks(
    machine: Machine, *, state_dir: Path, ports: Sequence[int], hotkey: Path | None, models: Sequence[Path]
) -> list[Check]:
    """In the order in which they are shown."""
    return [
        Check("python", lambda: judge_python(machine.python())),
        Check("disk", lambda: judge_disk(machine.disk(state_dir))),
        Check("ports", lambda: judge_ports(machine.ports(SERVICE_PORTS, ports))),
        Check("proxy", lambda: judge_proxies(machine.proxies()), 25.0),
        Check("clock", lambda: judge_clock(machine.clock())),
        Check("torch and GPU", lambda: judge_torch(machine.torch()), TORCH_SECONDS + 5),
        Check("hotkey", lambda: judge_hotkey(None if hotkey is None else machine.hotkey(hotkey))),
        Check("model files", lambda: judge_models(machine.models(models)), READING_SECONDS),
    ]
