"""The miner's settings, by environment."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode
from sn17_contract.tasks import VALIDATORS
from sn17_service import ServiceSettings

from sn17_miner.core.lanes import FastLane
from sn17_miner.core.sources import Source
from sn17_miner.core.timing import Timing

Words = Annotated[tuple[str, ...], NoDecode]


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


def _base_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return url.rstrip("/")


def _need(module: str, *, extra: str) -> None:
    if find_spec(module) is None:
        raise ValueError(f"needs {module}: uv sync --inexact --package sn17-miner --extra {extra}")


class ChainSettings(BaseModel):
    """``SN17_CHAIN__*``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["file", "http", "sdk"] = Field("http", description="where chain snapshots come from")
    url: str | None = Field(None, description="http: address of the snapshot")
    path: Path | None = Field(None, description="file: the snapshot")
    endpoint: str = Field(
        "wss://entrypoint-finney.opentensor.ai:443", description="sdk: websocket of a subtensor node"
    )
    interval_seconds: float = Field(600.0, gt=0, description="between two reads")
    deadline_seconds: float = Field(60.0, gt=0, description="for one read")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source == "http" and not self.url:
            raise ValueError("source http needs SN17_CHAIN__URL")
        if self.source == "file" and not self.path:
            raise ValueError("source file needs SN17_CHAIN__PATH")
        if self.source == "sdk":
            _need("bittensor", extra="chain")
        return self


class GateSettings(BaseModel):
    """``SN17_GATE__*``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scorer_url: str | None = Field(None, description="validation service with the subnet's interface")
    scorer_timeout_seconds: float = Field(15.0, gt=0)
    max_seeds: int = Field(3, ge=1, le=10, description="seeds tried per task at most")


class EnhanceSettings(BaseModel):
    """``SN17_ENHANCE__*``: off unless validators are named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_validators: Words = Field(
        (), description="hotkeys whose text prompts are enhanced, comma separated; * for all"
    )
    image_validators: Words = Field(
        (), description="hotkeys whose image prompts are enhanced, comma separated; * for all"
    )
    text_template: str = Field("{prompt}, single complete object, centered", description="must hold {prompt}")

    _split = field_validator("text_validators", "image_validators", mode="before")(_words)

    @field_validator("image_validators")
    @classmethod
    def _can_read_images(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            _need("PIL", extra="images")
        return value

    @field_validator("text_template")
    @classmethod
    def _has_prompt(cls, value: str) -> str:
        if value.count("{prompt}") != 1:
            raise ValueError("must hold {prompt} exactly once")
        return value


class GatewaySettings(BaseModel):
    """One of ``SN17_GATEWAYS``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,19}$", description="the door's name in journal, tables and metrics"
    )
    url: str = Field(description="base URL, where tasks and the list of nodes are asked for")
    weight: float = Field(1.0, gt=0, le=1000, description="share of the workers against the other doors'")
    hotkey_file: Path | None = Field(None, description="hotkey to work as; none = the miner's")
    worker_id: str = Field(
        "sn17", pattern=r"^[\x21-\x7e]{1,64}$", description="told to every client: no host names in it"
    )
    follow_nodes: bool = Field(True, description="ask every node that the gateway lists, if it lists several")
    ca_file: Path | None = Field(None, description="certificates (PEM) to trust; none = the usual ones")
    task_seconds: float = Field(600.0, gt=0, le=86_400, description="a task's life at this gateway")
    poll_seconds: float = Field(1.0, gt=0, le=600, description="between two calls to a node without tasks")

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        return _base_url(value)

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value == VALIDATORS:
            raise ValueError("is the validators' own door")
        return value

    def source(self) -> Source:
        """As the scheduler's core knows it."""
        return Source(
            door=self.name,
            url=self.url,
            weight=self.weight,
            worker_id=self.worker_id,
            life=self.task_seconds,
            pause=self.poll_seconds,
            follow_nodes=self.follow_nodes,
        )


class MinerSettings(ServiceSettings):
    """See ``--help``."""

    hotkey_file: Path = Field(description="the hotkey, never a coldkey")
    hotkey_address: str | None = Field(None, description="the address the hotkey must have; checked at start")
    netuid: int = Field(17, ge=0)
    chain: ChainSettings = Field(description="chain snapshots")
    workers: Words = Field((), description="base URLs of workers, comma separated")
    workers_dns: str | None = Field(None, description="name:port of the workers' headless Service")
    fixer_url: str = Field(description="base URL of the fixer")
    fixer_policy: str | None = Field(None, description="repair policy; none = the fixer's default")
    state_dir: Path = Field(description="folder of journal and spool")
    gate: GateSettings = GateSettings()
    enhance: EnhanceSettings = EnhanceSettings()

    gateways: tuple[GatewaySettings, ...] = Field(
        (), max_length=8, description="gateways to work for, as JSON list of {name, url, weight, ...}"
    )
    validators_weight: float = Field(
        4.0, gt=0, le=1000, description="validators' share of the workers against the gateways' weights"
    )
    fast_lane: FastLane = Field(
        FastLane.OFF, description="deadline, throttle: ask for it where the exact lane would be late"
    )

    max_tasks: int | None = Field(None, ge=1, description="stop pulling after so many, finish them, exit 0")
    quarantine: Words = Field((), description="hotkeys of validators never to ask, comma separated")
    always: Words = Field((), description="hotkeys to ask whatever their stake, comma separated")
    min_stake: float = Field(1000.0, ge=0, description="of validators that are asked")

    time_scale: float = Field(1.0, gt=0, le=10, description="factor on the protocol's times: local networks")
    task_deadline_seconds: float | None = Field(None, gt=0, description="to have a result after the pull")
    submit_deadline_seconds: float | None = Field(None, gt=0, description="to have an answer after the pull")
    pull_timeout_seconds: float = Field(12.0, gt=0)
    gateway_pull_timeout_seconds: float = Field(
        5.0, gt=0, description="for a gateway's tasks: a worker is held meanwhile"
    )
    submit_timeout_seconds: float = Field(300.0, gt=0)
    generate_timeout_seconds: float = Field(900.0, gt=0, description="a last resort: progress decides before")
    fix_timeout_seconds: float = Field(60.0, gt=0)
    stall_seconds: float = Field(30.0, gt=0, description="without progress a generation is given up")
    worker_rest_seconds: float = Field(15.0, ge=0, description="for a worker that failed")
    worker_poll_seconds: float = Field(1.0, gt=0)
    worker_discover_seconds: float = Field(5.0, gt=0)
    scale_ahead_seconds: float = Field(
        120.0, ge=0, description="a worker's start; cooldowns that end within it count as work for scaling"
    )
    clock_skew_alarm_seconds: float = Field(2.0, gt=0, description="warn above this")

    keep_days: float = Field(7.0, gt=0, description="finished tasks stay in the journal")
    keep_tasks: int = Field(20_000, ge=100, description="finished tasks in the journal at most")
    keep_assets: int = Field(20, ge=0, description="submitted assets kept for people to look at; 0 = none")
    keep_assets_max_bytes: int = Field(256 << 20, ge=0, description="submitted assets kept at most")
    spool_max_bytes: int = Field(4 << 30, gt=0, description="payloads on disk; no pulls above it")
    disk_min_free_bytes: int = Field(256 << 20, ge=0, description="no pulls with less free disk")
    max_splat_bytes: int = Field(500 * 1024 * 1024, gt=0)

    _split = field_validator("workers", "quarantine", "always", mode="before")(_words)

    @field_validator("workers")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_base_url(url) for url in value)

    @field_validator("fixer_url")
    @classmethod
    def _url(cls, value: str) -> str:
        return _base_url(value)

    @field_validator("workers_dns")
    @classmethod
    def _name_and_port(cls, value: str | None) -> str | None:
        if value is not None and not value.rpartition(":")[2].isdecimal():
            raise ValueError("must be name:port")
        return value

    @field_validator("gateways")
    @classmethod
    def _one_of_each_name(cls, value: tuple[GatewaySettings, ...]) -> tuple[GatewaySettings, ...]:
        if len({gateway.name for gateway in value}) != len(value):
            raise ValueError("give every gateway a name of its own")
        return value

    @model_validator(mode="after")
    def _some_workers(self) -> Self:
        if bool(self.workers) == bool(self.workers_dns):
            raise ValueError("set SN17_WORKERS or SN17_WORKERS_DNS, one of the two")
        return self

    def policy(self) -> Timing:
        """Time constants as these settings want them."""
        policy = Timing(
            stall=self.stall_seconds,
            worker_rest=self.worker_rest_seconds,
            min_stake=self.min_stake,
            max_seeds=self.gate.max_seeds,
        ).scaled(self.time_scale)
        return replace(
            policy,
            task_deadline=self.task_deadline_seconds or policy.task_deadline,
            submit_deadline=self.submit_deadline_seconds or policy.submit_deadline,
        )
