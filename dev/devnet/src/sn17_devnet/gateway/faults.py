"""Faults that a node can be told to have."""

from __future__ import annotations

from pydantic import Field, field_validator
from sn17_contract.gateway import Route

from sn17_devnet.faults import Fault, FaultKind


class GatewayFault(Fault):
    """All kinds but ``unvalidated``, which only validators have."""

    route: Route | None = None
    """None = any route."""
    node: int | None = Field(None, ge=0)
    """Index of the node, None = every one."""

    @field_validator("kind")
    @classmethod
    def _of_a_node(cls, kind: FaultKind) -> FaultKind:
        if kind is FaultKind.UNVALIDATED:
            raise ValueError("only validators can be without a validation service")
        return kind

    def concerns(self, server: int) -> bool:
        return self.node in (None, server)

    def fits(self, call: str) -> bool:
        return self.route is None or self.route.value == call
