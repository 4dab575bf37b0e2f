"""Everything the fake of 404's gateway can be told. Defaults are the original's, but for the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from sn17_contract.gateway import DEFAULT_MODEL, MODELS, KeyKind
from sn17_service import ServiceSettings

from sn17_devnet.gateway.faults import GatewayFault

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
LOCAL_KEY: Final = "00000000-0000-4000-8000-000000000404"
"""The guests' key of the fake: no secret, it opens nothing but a fake."""


class KnownKey(BaseModel):
    """A client's key beside the guests'; 0 is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: SecretStr
    kind: KeyKind = KeyKind.PERSONAL
    concurrent: Count = 1
    daily: Count = 0
    tags: tuple[str, ...] = ()


class FakeGatewaySettings(ServiceSettings):
    """``SN17_*`` settings of ``python -m sn17_devnet.gateway``; the data port is the control port."""

    state_dir: Path = Field(Path(".sn17/gateways"), description="where gateways.json is written")
    nodes: int = Field(1, ge=1, le=16, description="how many nodes; each holds the tasks that it took")
    node_port: int = Field(
        0, ge=0, le=65535, description="port of the first node, the others follow; 0 picks free ones"
    )
    advertise_ip: str | None = Field(
        None, description="address by which workers are told of the nodes; none = the host listened on"
    )

    models: tuple[str, ...] = Field(
        (DEFAULT_MODEL, "404-mesh", "404-mesh-v2"), min_length=1, description="models on offer, as JSON list"
    )
    slots: int = Field(3, ge=1, le=16, description="results wanted of one task, each by another hotkey")
    queue_limit: int = Field(500, ge=1, description="tasks in the queue of a node")
    task_seconds: Seconds = Field(600.0, description="life of a task, from add_task")
    result_seconds: Seconds = Field(300.0, description="results are kept, from the last result")
    sweep_seconds: Seconds = Field(30.0, description="between two clean-ups: every end is late by up to it")
    worker_hotkeys: tuple[str, ...] = Field(
        (), description="hotkeys that may work, as JSON list; empty = all"
    )

    generic_key: SecretStr = Field(SecretStr(LOCAL_KEY), description="key that all guests share")
    keys: tuple[KnownKey, ...] = Field((), description="other keys, as a JSON list")
    guest_concurrent: Count = Field(2, description="open tasks of all guests; 0 = no limit")
    guest_daily: Count = Field(250, description="tasks of all guests in 24 hours; 0 = no limit")
    guest_daily_by_address: Count = Field(
        10, description="tasks of an address of guests in 24 hours; 0 = none"
    )

    max_asset_bytes: int = Field(157_286_400, ge=1024, description="largest body of add_result")
    rate_add_task: Count = Field(30, description="calls a minute and address; 0 = no limit")
    rate_get_status: Count = Field(1000, description="calls a minute and address; 0 = no limit")
    rate_results: Count = Field(120, description="add_result, get_load, get_leader; 0 = no limit")
    unauthorized_daily: Count = Field(1200, description="add_task without a valid key, a day and address")

    seed: int = Field(404, ge=0, description="of drawn seeds, ids and faults")
    faults: tuple[GatewayFault, ...] = Field((), description="faults to inject, as a JSON list")

    @field_validator("models")
    @classmethod
    def _known_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(name not in MODELS for name in value):
            raise ValueError(f"unknown model; known: {', '.join(MODELS)}")
        return value
