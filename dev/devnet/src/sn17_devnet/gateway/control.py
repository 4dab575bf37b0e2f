"""The control port: where the nodes are, what became of tasks, faults and restarts to order."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from sn17_contract.http import Code
from sn17_contract.local_network import GatewayTask, LocalGateways
from sn17_service import Problem, Service

from sn17_devnet.gateway.cluster import FakeGateway
from sn17_devnet.gateway.faults import GatewayFault

_MAX_BODY = 1024**2


class Restart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(1.0, ge=0, le=3600)


def build_control(service: Service, gateway: FakeGateway) -> FastAPI:
    """The data application."""
    app = service.new_app("sn17 fake of 404's gateway", _MAX_BODY)

    @app.get("/gateways")
    async def gateways() -> LocalGateways:
        return describe(service, gateway)

    @app.get("/tasks")
    async def tasks() -> list[GatewayTask]:
        return gateway.tasks()

    @app.get("/faults")
    async def faults() -> list[GatewayFault]:
        return list(gateway.faults)

    @app.put("/faults")
    async def set_faults(rules: list[GatewayFault]) -> list[GatewayFault]:
        gateway.set_faults(rules)
        return list(gateway.faults)

    @app.post("/nodes/{index}/restart", status_code=202)
    async def restart(index: int, body: Restart) -> dict[str, int]:
        if not 0 <= index < len(gateway.nodes):
            raise Problem(Code.NOT_FOUND, f"there are nodes 0 to {len(gateway.nodes) - 1}")
        gateway.nodes[index].server.restart_soon(body.seconds)
        return {"node_id": index + 1}

    return app


def describe(service: Service, gateway: FakeGateway) -> LocalGateways:
    """Where everything is now; the service listens."""
    return gateway.description(
        f"http://{gateway.shared.ip}:{service.port}", f"http://{gateway.shared.ip}:{service.ops_port}"
    )
