"""A service as a process of its own, for tests of signals and parents."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from sn17_service import Service, ServiceSettings, load_settings


class ProbeSettings(ServiceSettings):
    behaviour: str = "plain"


def main() -> int:
    if sys.argv[1:] == ["parent"]:
        child = subprocess.Popen([sys.executable, __file__])
        return child.wait()
    settings = load_settings(ProbeSettings, prog="probe", argv=[])
    service = Service("probe", "0", settings)
    app = service.new_app("probe", 1000)

    async def finish() -> None:
        if settings.behaviour == "hang":
            await asyncio.Event().wait()
        service.log.info("finished its work")

    async def block() -> None:
        service.log.info("blocks its loop")
        time.sleep(3600)  # noqa: ASYNC251

    async def fail() -> None:
        raise RuntimeError("kaput")

    service.on_stop.append(finish)
    if settings.behaviour == "block":
        service.background("blocker", block)
    if settings.behaviour == "fail":
        service.background("failer", fail)
    return service.main(app)


if __name__ == "__main__":
    sys.exit(main())
