"""``python -m sn17_fixer``: serve the fixer."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from sn17_service import Service
from sn17_service.settings import load_settings

from sn17_fixer.app import FixerApp
from sn17_fixer.settings import FixerSettings
from sn17_fixer.warm import warm_up


def main() -> None:
    """Serve until told to stop."""
    settings = load_settings(FixerSettings, prog="sn17-fixer", description=__doc__ or "")
    service = Service("fixer", version("sn17-fixer"), settings)
    app = FixerApp(service, settings)

    async def warm() -> None:
        if settings.warm_up:
            await asyncio.to_thread(warm_up)

    async def stop() -> None:
        await asyncio.to_thread(app.close)

    service.on_start.append(warm)
    service.on_stop.append(stop)
    raise SystemExit(service.main(app.build()))


if __name__ == "__main__":
    main()
