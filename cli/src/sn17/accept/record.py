"""One file that says what a run was and what it showed, for others to read: ``--record FILE``."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sn17_contract.tasks import Outcome
from sn17_contract.worker import WorkerVersion

from sn17.accept.tables import passed
from sn17.accept.verdict import Check, Criteria, Sample
from sn17.report_file import ReportError
from sn17.version import version_text

SCHEMA: Final = "sn17.acceptance/v1"
RENDER_SIZE: Final = 128
"""Pixels of one of the four views of a picture."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Render(_Part):
    """A repaired asset as two by two views; ``png`` is base64."""

    prompt: str
    seed: int
    png: str

    @classmethod
    def of(cls, sample: Sample, png: bytes) -> Render:
        return cls(prompt=sample.prompt, seed=sample.seed, png=base64.b64encode(png).decode())


class Watched(_Part):
    """What ``sn17 watch`` counted afterwards."""

    passed: bool
    checks: list[dict[str, Any]]
    outcomes: dict[str, int]
    validators: dict[str, Any]


class Record(_Part):
    """A run. ``sn17`` is this command's version and commit, ``began`` UTC, ``seconds`` the length of the run.

    ``workers`` say what made the assets: device, driver, digests of the weights. No host name, token or key
    of this side is in it: ``worker`` of a sample is the pod's name, ``validators`` are public hotkeys.
    """

    schema_: Literal["sn17.acceptance/v1"] = Field(SCHEMA, alias="schema")
    sn17: str
    began: datetime
    seconds: float
    passed: bool
    workers: list[WorkerVersion]
    criteria: dict[str, Any]
    checks: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    renders: list[Render]
    watch: Watched | None = None


def new_record(
    workers: Sequence[WorkerVersion],
    criteria: Criteria,
    checks: Sequence[Check],
    samples: Sequence[Sample],
    renders: Sequence[Render],
    *,
    began: datetime,
) -> Record:
    """The record of an acceptance run that began at that time and ends now."""
    return Record(
        sn17=version_text(),
        began=began,
        seconds=round((datetime.now(UTC) - began).total_seconds(), 1),
        passed=passed(checks),
        workers=list(workers),
        criteria=asdict(criteria),
        checks=[asdict(check) for check in checks],
        samples=[asdict(sample) for sample in samples],
        renders=list(renders),
    )


def with_watch(
    file: Path, checks: Sequence[Check], outcomes: Mapping[Outcome, int], validators: Mapping[str, Any]
) -> Record:
    """The record in ``file`` with what was watched after it.

    Raises:
        ReportError: it is not there, or no record.
    """
    try:
        before = Record.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ReportError(f"{file}: {error.strerror}: `sn17 accept --record` writes it") from error
    except ValidationError as error:
        raise ReportError(f"{file} is no record of `sn17 accept --record` ({SCHEMA})") from error
    watched = Watched(
        passed=passed(checks),
        checks=[asdict(check) for check in checks],
        outcomes={outcome.value: count for outcome, count in outcomes.items()},
        validators=dict(validators),
    )
    return before.model_copy(update={"watch": watched, "passed": before.passed and watched.passed})


def dump(record: Record) -> str:
    """As JSON."""
    return record.model_dump_json(indent=1, by_alias=True)
