"""The gateway: port, headers and the JSON of its routes, as 404's gateway has them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

GATEWAY_PORT: Final = 8404
HEADER_KEY: Final = "x-api-key"
HEADER_ORIGIN: Final = "x-client-origin"
#: SHA-256 of a result's file, as hex: the same for every answer with this result.
HEADER_RESULT: Final = "SN17-Result"
#: Clients that have a name of their own; all others count as ``api``.
ORIGINS: Final = ("discord", "unity", "blender", "gen.404.xyz", "api")
#: Answer of ``add_result`` for a task that is unknown, complete or over: the worker drops its result.
GONE: Final = "task_context_unavailable"
MAX_WORKER_ID: Final = 1024


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]


class AddTaskBody(BaseModel):
    """``POST /add_task`` as JSON; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    prompt: str | None = None
    model: str | None = Field(None, max_length=64)
    seed: int | None = Field(None, ge=-(2**31), le=2**32 - 1)
    model_params: dict[str, Any] = Field({})


class TaskId(BaseModel):
    """Answer of ``POST /add_task``."""

    id: str


class StatusBody(BaseModel):
    """Answer of ``GET /get_status``."""

    status: str
    worker_id: str | None = None
    reason: str | None = None


class GetTasksBody(BaseModel):
    """``POST /get_tasks``; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")

    worker_hotkey: str
    worker_id: Text = Field(max_length=MAX_WORKER_ID)
    signature: str
    timestamp: str
    requested_task_count: int = Field(ge=0, le=2**64 - 1)
    model: str | list[str]
    worker_tags: list[str] = Field([])

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "validator_hotkey" in value:
            if "worker_hotkey" in value:
                raise ValueError("give worker_hotkey or its old name validator_hotkey, not both")
            value = {**value, "worker_hotkey": value["validator_hotkey"]}
        return value


class TaskOffer(BaseModel):
    """One task of ``POST /get_tasks``; ``image`` is standard base64. Absent fields are left out."""

    id: str
    prompt: str | None = None
    image: str | None = None
    model: str
    seed: int
    model_params: dict[str, Any] | None = None
    assignment_token: str


class GatewayInfo(BaseModel):
    """One node; the last two are unix seconds."""

    node_id: int
    domain: str
    ip: str
    name: str
    http_port: int
    available_tasks: int
    last_task_acquisition: int
    last_update: int


class Offers(BaseModel):
    """Answer of ``POST /get_tasks``."""

    tasks: list[TaskOffer]
    gateways: list[GatewayInfo]


class Load(BaseModel):
    """Answer of ``GET /get_load``."""

    gateways: list[GatewayInfo]


class Leader(BaseModel):
    """Answer of ``GET /get_leader``."""

    leader_id: int
    domain: str
    ip: str
    http_port: int


class Route(StrEnum):
    """Paths of the data port."""

    ADD_TASK = "/add_task"
    GET_STATUS = "/get_status"
    GET_RESULT = "/get_result"
    GET_TASKS = "/get_tasks"
    ADD_RESULT = "/add_result"
    GET_LOAD = "/get_load"
    GET_LEADER = "/get_leader"
    ID = "/id"


KEYS_PATH: Final = "/admin/v1/keys"
"""On the ops port, behind the admin token."""


class KeyKind(StrEnum):
    """Guests share the generic key; a personal key is one user's; a company's has a quota by UTC day."""

    GENERIC = "generic"
    PERSONAL = "personal"
    COMPANY = "company"


class NewKey(BaseModel):
    """What a key may do; 0 is no limit. A company's day is the UTC day, and its failures are not counted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")
    kind: KeyKind = KeyKind.COMPANY
    concurrent: int = Field(0, ge=0, le=1_000_000)
    daily: int = Field(0, ge=0, le=1_000_000_000)
    tags: list[str] = Field([], max_length=16)


class KeyState(BaseModel):
    """A key without its text. Times are unix seconds."""

    id: str
    name: str
    kind: KeyKind
    concurrent: int
    daily: int
    tags: list[str]
    created_at: float
    revoked_at: float | None


class CreatedKey(BaseModel):
    """``key`` is shown this once; only its hash is kept."""

    key: str
    state: KeyState


@dataclass(frozen=True, slots=True)
class Model:
    """``splat``: results are the subnet's SPZ, else GLB."""

    name: str
    takes_text: bool
    splat: bool


DEFAULT_MODEL: Final = "404-3dgs"
#: Every model of 404's gateway; a setting says which of them are offered.
MODELS: Final = {
    model.name: model
    for model in (
        Model(DEFAULT_MODEL, takes_text=True, splat=True),
        Model("404-mesh", takes_text=False, splat=False),
        Model("404-mesh-v2", takes_text=False, splat=False),
    )
}
