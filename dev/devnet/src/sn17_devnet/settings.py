"""Everything the local network can be told."""

from __future__ import annotations

from pathlib import Path

from bittensor_wallet import Keypair
from pydantic import Field, field_validator
from sn17_service import ServiceSettings

from sn17_devnet.faults import FaultRule


class DevnetSettings(ServiceSettings):
    """``SN17_*`` settings of ``python -m sn17_devnet``."""

    state_dir: Path = Field(Path(".sn17/devnet"), description="wallets, ledger and devnet.json")
    validators: int = Field(2, ge=1, le=64, description="how many validators")
    axon_port: int = Field(
        0, ge=0, le=65535, description="port of the first validator, the others follow; 0 picks free ones"
    )
    advertise_ip: str | None = Field(
        None, description="address by which the snapshot lists the validators; none = the host listened on"
    )
    miner_hotkeys: tuple[str, ...] = Field(
        (), description="registered miners (SS58); none = a hotkey is made in the state folder"
    )
    time_scale: float = Field(1.0, gt=0, le=1, description="one factor on every time constant of the subnet")
    seed: int = Field(17, ge=0, description="of tasks and faults")
    image_ratio: float = Field(0.2, ge=0, le=1, description="share of image tasks")
    strictness: float = Field(1.0, gt=0, le=10, description="exponent on every score: above 1 is harder")
    detail: bool = Field(False, description="text results: whether few or flat gaussians cost score")
    quality_threshold: float = Field(0.6, ge=0, le=1, description="score from which a result is accepted")
    require_signature: bool = Field(
        False, description="refuse calls without a transport signature, as release 10.5 does and 9.9 does not"
    )
    max_body_bytes: int = Field(
        256 * 1024**2, gt=0, description="of a call; the real validators have no limit"
    )
    faults: tuple[FaultRule, ...] = Field((), description="faults to inject, as a JSON list")

    @field_validator("miner_hotkeys")
    @classmethod
    def _addresses(cls, hotkeys: tuple[str, ...]) -> tuple[str, ...]:
        for hotkey in hotkeys:
            Keypair(ss58_address=hotkey)
        if len(set(hotkeys)) != len(hotkeys):
            raise ValueError("a hotkey is given twice")
        return hotkeys
