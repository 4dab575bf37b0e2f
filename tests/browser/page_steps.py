"""What a person does on the page, and what they see."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

AXE = Path(__file__).parents[2] / "dev/page/node_modules/axe-core/axe.min.js"

_DRAWN = """() => {
  const small = new OffscreenCanvas(64, 64).getContext("2d");
  small.drawImage(document.getElementById("view"), 0, 0, 64, 64);
  return small.getImageData(0, 0, 64, 64).data.some((value, at) => at % 4 === 3 && value > 100);
}"""


async def shown(page: Page, *, drawn: bool = True) -> str:
    """Waits until an asset is on the stage; its number of gaussians as the page writes it.

    ``drawn=False`` does not wait for the picture, which takes software minutes where the gaussians are many.
    """
    await page.wait_for_selector("#save-ply:not([disabled])")
    if drawn:
        await page.wait_for_function(_DRAWN, polling=300)
    return await page.inner_text("#facts dt:has-text('Gaussians') + dd")


async def look(page: Page) -> str:
    """What the stage shows now, as a digest of its pixels."""
    url = await page.evaluate("document.getElementById('view').toDataURL()")
    return hashlib.sha256(url.encode()).hexdigest()


async def until_it_looks_other(page: Page, than: str) -> None:
    """Waits until the stage shows something else."""
    code = (
        "async ([than]) => {"
        " const bytes = new TextEncoder().encode(document.getElementById('view').toDataURL());"
        " const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));"
        " return [...digest].map((b) => b.toString(16).padStart(2, '0')).join('') !== than; }"
    )
    await page.wait_for_function(code, arg=[than], polling=300)


async def until_text(page: Page, selector: str, text: str) -> None:
    """Waits until an element holds a text."""
    await page.locator(selector).filter(has_text=text).first.wait_for()


async def download(page: Page, button: str) -> tuple[str, bytes]:
    """Name and content of what a button saves."""
    async with page.expect_download() as waiting:
        await page.click(button)
    found = await waiting.value
    return found.suggested_filename, await asyncio.to_thread(_content, await found.path())


def _content(path: Path) -> bytes:
    return path.read_bytes()


async def complaints(page: Page) -> list[dict[str, Any]]:
    """What axe finds wrong: rule, impact and the elements."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make test-browser does it (npm)")
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {"rule": each["id"], "impact": each["impact"], "where": [node["html"] for node in each["nodes"]]}
        for each in found["violations"]
    ]
