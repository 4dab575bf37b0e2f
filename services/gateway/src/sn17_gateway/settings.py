"""Settings of the gateway, by environment."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from sn17_contract.gateway import DEFAULT_MODEL, GATEWAY_PORT, MODELS
from sn17_protocol.gateway import valid_hotkey
from sn17_service.settings import Port, ServiceSettings

from sn17_gateway.keys import KEY_FORMAT

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]


class GatewaySettings(ServiceSettings):
    """``SN17_*``; see :class:`sn17_service.ServiceSettings` for what every service shares."""

    port: Port = Field(GATEWAY_PORT, description="data port; 0 picks a free one")
    tls_cert_file: Path | None = Field(None, description="certificate chain (PEM); none = HTTP")
    tls_key_file: Path | None = Field(None, description="private key (PEM) beside tls_cert_file")

    data_dir: Path = Field(Path("gateway-data"), description="folder of prompts, results and the SQLite file")
    database: Literal["sqlite", "postgres"] = Field(
        "sqlite", description="postgres: several replicas, which share data_dir"
    )
    database_url_file: Path | None = Field(None, description="file with the postgresql:// URL")
    database_connections: int = Field(8, ge=1, le=200, description="connections to Postgres")
    database_timeout_seconds: Seconds = Field(10.0, description="for a connection or a statement of Postgres")

    models: tuple[str, ...] = Field(
        (DEFAULT_MODEL,), min_length=1, description="models on offer, as JSON list"
    )
    slots: int = Field(1, ge=1, le=16, description="results wanted of one task, each by another hotkey")
    queue_limit: int = Field(500, ge=1, description="tasks that may wait for a worker")
    task_seconds: Seconds = Field(600.0, description="life of a task, from add_task")
    lease_seconds: Seconds = Field(180.0, description="until a task is offered again when no result came")
    result_seconds: Seconds = Field(300.0, description="results are kept, from the last result")
    state_seconds: Seconds = Field(86_400.0, description="states are kept, from the end; quotas need a day")
    sweep_seconds: Seconds = Field(5.0, description="between two clean-ups")
    hide_in_progress: bool = Field(True, description="NoResult in place of InProgress, for Blender 0.14.1")
    status_needs_owner: bool = Field(False, description="get_status asks for the key and hides others' tasks")
    check_assets: bool = Field(True, description="decode a result before it counts as a success")

    generic_key: SecretStr | None = Field(None, description="key that all guests share; none = no guests")
    generic_key_file: Path | None = Field(None, description="file with the guests' key, instead")
    key_secret_file: Path | None = Field(None, description="secret of key hashes; none = made in data_dir")
    guest_concurrent: Count = Field(2, description="open tasks of all guests; 0 = no limit")
    guest_daily: Count = Field(250, description="tasks of all guests in 24 hours; 0 = no limit")
    guest_daily_by_address: Count = Field(10, description="the same of one address; 0 = no limit")
    worker_hotkeys: tuple[str, ...] = Field((), description="hotkeys that may work; empty = all")

    max_prompt_bytes: int = Field(384, ge=3, description="longest prompt, in both forms of add_task")
    max_image_bytes: int = Field(2 * 1024**2, ge=1, description="largest picture")
    max_image_side: int = Field(1024, ge=1, description="most pixels of a picture's side")
    max_asset_bytes: int = Field(157_286_400, ge=1024, description="largest body of add_result")
    max_gaussians: int = Field(5_000_000, gt=0, description="most gaussians of a result")
    max_pull: int = Field(32, ge=1, le=500, description="most tasks of one get_tasks")
    max_uploads: int = Field(16, ge=1, le=500, description="results taken in at once")

    rate_add_task: Count = Field(30, description="calls a minute and address; 0 = no limit")
    rate_get_status: Count = Field(1000, description="calls a minute and address; 0 = no limit")
    rate_get_result: Count = Field(600, description="calls a minute and address; 0 = no limit")
    rate_get_tasks: Count = Field(6000, description="calls a minute and address; 0 = no limit")
    rate_results: Count = Field(120, description="workers' other calls a minute and address; 0 = no limit")
    unauthorized_daily: Count = Field(1200, description="add_task without a key, a day and address; 0 = any")
    unknown_key_limit: Count = Field(50, description="unknown keys that block an address; 0 = never")
    unknown_key_seconds: Seconds = Field(600.0, description="within which unknown keys are counted")
    unknown_key_block_seconds: Seconds = Field(300.0, description="that look-ups are blocked")
    trusted_proxies: tuple[str, ...] = Field((), description="networks whose X-Forwarded-For is believed")

    page: bool = Field(True, description="serve the page in the browser")
    miner_url: str | None = Field(None, description="ops port of the miner whose tasks and workers it shows")
    miner_ready_file: Path | None = Field(None, description="instead: ready file of a miner on this machine")
    miner_token_file: Path | None = Field(None, description="admin token of the miner")

    node_id: int = Field(1, ge=1, le=2**31 - 1, description="number that /id tells")
    node_name: str = Field("sn17", max_length=64, description="name that workers are told")
    node_domain: str = Field("localhost", max_length=253, description="host name that workers are told")
    node_ip: str = Field("127.0.0.1", max_length=45, description="address that workers are told")
    node_port: int | None = Field(None, ge=1, le=65535, description="port workers are told; none = data port")

    @field_validator("models")
    @classmethod
    def _known_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in MODELS]
        if unknown:
            raise ValueError(f"unknown model; known: {', '.join(MODELS)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _guests(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            file = values.get("generic_key_file")
            return values if file is None else values | {"generic_key": Path(file).read_text().strip()}
        except OSError as error:
            raise ValueError(f"SN17_GENERIC_KEY_FILE: {error.strerror}") from error

    @field_validator("generic_key")
    @classmethod
    def _uuid(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not KEY_FORMAT.fullmatch(value.get_secret_value()):
            raise ValueError("must be a UUID with hyphens, 36 characters")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            ipaddress.ip_network(item)
        return value

    @field_validator("worker_hotkeys")
    @classmethod
    def _hotkeys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            if not valid_hotkey(item):
                raise ValueError("must hold SS58 addresses of prefix 42")
        return value

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("SN17_TLS_CERT_FILE and SN17_TLS_KEY_FILE go together: set both or none")
        if self.database == "postgres" and self.database_url_file is None:
            raise ValueError("SN17_DATABASE=postgres needs SN17_DATABASE_URL_FILE")
        return self
