"""``python -m sn17_devnet.gateway``: a fake of 404's gateway, with faults and restarts to order."""

from __future__ import annotations

from importlib.metadata import version

from sn17_contract.local_network import GATEWAYS_FILE
from sn17_files import write_atomically
from sn17_service import Service, load_settings

from sn17_devnet.gateway.cluster import FakeGateway
from sn17_devnet.gateway.control import build_control, describe
from sn17_devnet.gateway.settings import FakeGatewaySettings


def main() -> None:
    """Run until SIGTERM."""
    settings = load_settings(
        FakeGatewaySettings,
        prog="sn17-devnet-gateway",
        description="A fake of 404's gateway: nodes that lose their tasks in a restart, and all its limits.",
    )
    service = Service("devnet-gateway", version("sn17-devnet"), settings)
    gateway = FakeGateway(settings)

    async def start() -> None:
        await gateway.start()
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        described = describe(service, gateway)
        write_atomically(settings.state_dir / GATEWAYS_FILE, described.to_json())
        for node in described.nodes:
            service.log.info("node listens", extra={"url": node.url})

    service.on_start.append(start)
    service.on_stop.append(gateway.stop)
    service.background("sweep", gateway.keep_swept)
    raise SystemExit(service.main(build_control(service, gateway)))


if __name__ == "__main__":
    main()
