"""What the stack knows of the chain: one snapshot of the subnet, from whatever source."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field


class Neuron(BaseModel):
    """One registered hotkey. ``stake``, ``emission`` in alpha; ``incentive`` a share of 1."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    uid: int = Field(ge=0)
    hotkey: str
    ip: str = "0.0.0.0"
    port: int = Field(default=0, ge=0, le=65535)
    serving: bool = False
    stake: float = Field(default=0.0, ge=0)
    emission: float = Field(default=0.0, ge=0)
    incentive: float = Field(default=0.0, ge=0)
    registered_at_block: int = Field(default=0, ge=0)
    immune_blocks_left: int = Field(default=0, ge=0)

    @property
    def address(self) -> str:
        """``host:port`` of the axon."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class ChainSnapshot(BaseModel):
    """The subnet at one block. ``taken_at`` in Unix seconds, ``burn_price`` in TAO."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    netuid: int = Field(ge=0)
    block: int = Field(ge=0)
    taken_at: float
    burn_price: float = Field(default=0.0, ge=0)
    neurons: tuple[Neuron, ...] = ()

    def neuron(self, hotkey: str) -> Neuron | None:
        """The neuron of ``hotkey``, or None when it is not registered."""
        return next((neuron for neuron in self.neurons if neuron.hotkey == hotkey), None)

    def validators(self, *, min_stake: float = 1000.0) -> tuple[Neuron, ...]:
        """Neurons that answer calls and have the stake to hand out tasks."""
        return tuple(n for n in self.neurons if n.serving and n.stake >= min_stake)

    def prune_position(self, hotkey: str) -> int | None:
        """How many would be deregistered before ``hotkey``; None when it is not registered.

        The chain's order: not immune first, then lowest emission, oldest registration, lowest uid.
        """
        order = [n.hotkey for n in _prune_order(self.neurons)]
        return order.index(hotkey) if hotkey in order else None


def _prune_order(neurons: Iterable[Neuron]) -> list[Neuron]:
    return sorted(neurons, key=lambda n: (n.immune_blocks_left > 0, n.emission, n.registered_at_block, n.uid))
