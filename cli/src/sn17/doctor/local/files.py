"""The hotkey's file and model files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sn17.doctor.model import Finding, failed, not_used, ok, warning


@dataclass(frozen=True, slots=True)
class Hotkey:
    """``mode`` are the permission bits; ``problem`` is why it cannot be used to sign."""

    path: Path
    mode: int = 0o600
    address: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A directory with weights. ``fetched`` is OWNER/NAME@COMMIT of its manifest, None where it has none;
    ``into`` the folder it was fetched into.
    """

    path: Path
    fetched: str | None
    into: Path
    problem: str = ""


def judge_hotkey(found: Hotkey | None) -> Finding:
    if found is None:
        return not_used("a local run makes its own", "name one with --hotkey FILE or SN17_HOTKEY_FILE")
    if found.problem:
        return failed(found.problem, "name a hotkey file that btcli wrote, alone in its folder")
    if found.mode & 0o077:
        return failed(
            f"{found.path} may be read by other users (mode {found.mode:o})",
            "keep it to its owner",
            f"chmod 600 {shlex.quote(str(found.path))}",
        )
    return ok(f"{found.address} ({found.path})")


def judge_models(found: Sequence[ModelFiles]) -> Finding:
    bad = [model for model in found if model.problem]
    if bad:
        again = [model for model in bad if model.fetched]
        command = " && ".join(
            f"sn17-trellis fetch {shlex.quote(str(model.fetched))} --into {shlex.quote(str(model.into))}"
            for model in again
        )
        return failed("; ".join(model.problem for model in bad), "fetch what is not whole again", command)
    without = [str(model.path) for model in found if model.fetched is None]
    if without:
        return warning(
            f"no manifest in {', '.join(without)}, so nothing can be compared",
            "sn17-trellis fetch OWNER/NAME@COMMIT --into FOLDER writes one",
        )
    if not found:
        return not_used("no model folder named; the bundled checkpoint needs none", "name one with --model")
    return ok(", ".join(f"{model.fetched} whole" for model in found))
