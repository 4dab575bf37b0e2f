"""The local network: ``devnet.json``, which says where everything is, and the ledger of its validators."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from sn17_contract.files import Versioned
from sn17_contract.tasks import Outcome

DESCRIPTION_FILE: Final = "devnet.json"


class Unjudged(StrEnum):
    """Where an assignment stands without an outcome. ``dropped``: the validator forgot the task in a
    restart; the miner cannot be blamed."""

    OPEN = "open"
    DROPPED = "dropped"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ValidatorAddress(_Part):
    """Where one validator serves its axon."""

    hotkey: str
    ip: str
    port: int
    url: str


class LocalNetwork(Versioned):
    """``devnet.json``. ``miners`` are the hotkeys registered at the start."""

    schema_: Literal["sn17.local-network/v1"] = Field(alias="schema")
    snapshot_url: str
    ledger_url: str
    faults_url: str
    validation_url: str
    ops_url: str
    time_scale: float = Field(gt=0)
    miners: tuple[str, ...]
    validators: tuple[ValidatorAddress, ...]


class LedgerTask(_Part):
    """One assignment of one task. Times in seconds since the epoch; ``delivery_seconds`` is from the
    assignment to the end of validation."""

    task_id: str
    kind: str
    scene: str
    hotkey: str
    assigned_at: float
    outcome: Outcome | Unjudged
    reason: str
    score: float | None
    closed_at: float | None
    delivery_seconds: float | None
    reissued: int
    locked: int


class ValidatorLedger(_Part):
    """Everything that one validator handed out. ``violations`` counts pulls that came too soon, by miner."""

    hotkey: str
    port: int
    up: bool
    outcomes: dict[str, int]
    violations: dict[str, int]
    restarts: int
    tasks: tuple[LedgerTask, ...]


class NetworkLedger(Versioned):
    """``GET ledger_url``: the ledgers of the validators."""

    schema_: Literal["sn17.ledger/v1"] = Field(alias="schema")
    taken_at: float
    time_scale: float
    validators: tuple[ValidatorLedger, ...]


GATEWAYS_FILE: Final = "gateways.json"


class GatewayNode(_Part):
    """One node of the fake of 404's gateway."""

    url: str
    up: bool


class LocalGateways(Versioned):
    """``gateways.json``: the fake of 404's gateway. ``generic_key`` is the guests' key, which opens nothing
    else."""

    schema_: Literal["sn17.local-gateways/v1"] = Field(alias="schema")
    control_url: str
    ops_url: str
    generic_key: str
    nodes: tuple[GatewayNode, ...]


class GatewayTask(_Part):
    """A task of the fake. ``node`` is the index of the node that took it; ``hotkeys`` were handed it."""

    id: str
    node: int
    status: str
    reason: str | None
    created_at: float
    hotkeys: tuple[str, ...]
    successes: int
    failures: int
