"""A Chromium that draws in software, for tests, measurements and pictures of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from playwright.async_api import Browser

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # A name that is not the loopback's, for what a gateway tells a browser elsewhere.
    "--host-resolver-rules=MAP gen.example.com 127.0.0.1",
)
MIB: Final = 1024 * 1024


def chromium() -> Path | None:
    """The browser's program: ``SN17_CHROMIUM``, else the first that is on the path."""
    found = os.environ.get("SN17_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    return Path(found) if found else None


def missing() -> str | None:
    """Why no browser can be driven here, and what to do about it; None where one can."""
    if find_spec("playwright") is None:
        return "Playwright is not installed: run it by its make target, which installs the group browser"
    if chromium() is None:
        return "no Chromium: apt-get install chromium, or name its program in SN17_CHROMIUM"
    return None


@asynccontextmanager
async def opened() -> AsyncIterator[Browser]:
    """A browser without a window. Call :func:`missing` first."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


async def renderer_mib(browser: Browser) -> float:
    """Resident memory of the largest process that runs a page."""
    session = await browser.new_browser_cdp_session()
    found = await session.send("SystemInfo.getProcessInfo")
    await session.detach()
    pids = [process["id"] for process in found["processInfo"] if process["type"] == "renderer"]
    return max(_resident_bytes(pid) for pid in pids) / MIB


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
