"""``python -m sn17_devnet``: local validators, with wallets they make themselves, and a chain to look at."""

from __future__ import annotations

from importlib.metadata import version

from sn17_contract.local_network import DESCRIPTION_FILE
from sn17_files import write_atomically
from sn17_service import Service, load_settings

from sn17_devnet.app import build_app
from sn17_devnet.network import Network
from sn17_devnet.settings import DevnetSettings


def main() -> None:
    """Run until SIGTERM."""
    settings = load_settings(
        DevnetSettings,
        prog="sn17-devnet",
        description="Local validators of subnet 17: the real protocol, scenes as prompts, a chain to read.",
    )
    service = Service("devnet", version("sn17-devnet"), settings)
    network = Network(settings)

    started = False

    async def start() -> None:
        nonlocal started
        await network.start()
        started = True
        base = f"http://{network.ip}:{service.port}"
        described = network.description(base, f"http://{network.ip}:{service.ops_port}")
        write_atomically(settings.state_dir / DESCRIPTION_FILE, described.to_json())
        for validator in described.validators:
            service.log.info("validator listens", extra=validator.model_dump())

    service.readiness.add("validators", lambda: (started, "" if started else "not listening yet"))
    service.on_start.append(start)
    service.on_stop.append(network.stop)
    service.background("sync", network.keep_synced)
    raise SystemExit(service.main(build_app(service, network)))


if __name__ == "__main__":
    main()
