"""The ready file (``SN17_READY_FILE``): what a service writes once it listens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sn17_contract.files import Versioned


class ReadyFile(Versioned):
    """Where a process listens and which incarnation it is. ``port`` is None without a data port."""

    schema_: Literal["sn17.ready/v1"] = Field(alias="schema")
    port: int | None = Field(ge=1, le=65535)
    ops_port: int = Field(ge=1, le=65535)
    pid: int = Field(ge=1)
    boot_id: str = Field(min_length=1)
