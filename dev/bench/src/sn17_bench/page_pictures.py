"""Pictures of the page for the docs, and an animation, from a real run of `sn17 up --demo` in Chromium.

python -m sn17_bench.page_pictures FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from sn17_bench.browser import missing, opened
from sn17_bench.page_stack import local_stack

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PROMPT: Final = "a yellow wooden chair"
WAIT_MS: Final = 300_000
ASSETS: Final = 10
WIDTH: Final = 800
FRAME_MS: Final = 140
STEP_MS: Final = 400
MOST_BYTES: Final = 2_000_000
#: One key press turns by 0.15 rad, so that these frames of two presses each are one turn.
TURN_FRAMES: Final = 21
_CANVAS: Final = "document.getElementById('view').toDataURL()"


async def take(folder: Path, url: str) -> None:
    """Everything; what takes minutes comes last."""
    async with opened() as browser:
        page = await _window(browser, 1280, 900)
        await page.goto(url)
        await page.wait_for_selector(f"#list li:nth-child({ASSETS}) .thumb", state="attached")
        await _choose_accepted(page)
        await _thumbs(page)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await page.evaluate("scrollTo(0, 0)")
            await _settled(page)
            await page.screenshot(path=folder / f"page-{scheme}.png")
        await page.emulate_media(color_scheme="light", reduced_motion="reduce")
        await page.locator("#assets").screenshot(path=folder / "assets-light.png")
        await page.close()
        await _phone(browser, url, folder / "phone-dark.png")
        await _animation(browser, url, folder / "page.webp")
        await _workers(browser, url, folder / "workers-dark.png")


async def _window(browser: Browser, width: int, height: int, scale: float = 1) -> Page:
    context = await browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, reduced_motion="reduce"
    )
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    return page


async def _choose_accepted(page: Page) -> None:
    await page.locator("#list button").filter(has_text="accepted (score").first.click()
    await page.locator("#facts").filter(has_text="accepted (score").wait_for()
    await page.wait_for_selector("#save-ply:not([disabled])")
    await page.wait_for_function(f"() => {_CANVAS}.length > 20000")
    await _settled(page)


async def _thumbs(page: Page) -> None:
    """Until every asset in sight has its picture."""
    await page.locator("#assets").scroll_into_view_if_needed()
    await page.wait_for_selector("#list li:nth-child(8) .thumb.ready", state="attached")
    await page.wait_for_timeout(5000)


async def _phone(browser: Browser, url: str, target: Path) -> None:
    page = await _window(browser, 390, 844, scale=2)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.goto(url)
    await _choose_accepted(page)
    await page.locator("#stage-title").scroll_into_view_if_needed()
    await page.evaluate("document.getElementById('stage-title').closest('section').scrollIntoView()")
    await _settled(page)
    await page.screenshot(path=target)
    await page.close()


async def _workers(browser: Browser, url: str, target: Path) -> None:
    """After a recycle: a swap, or what the guard thought better."""
    page = await _window(browser, 1280, 900)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.goto(url)
    await page.locator("#events li").filter(has_text=" done, ").first.wait_for()
    await page.locator("section:has(#workers)").screenshot(path=target)
    await page.close()


async def _animation(browser: Browser, url: str, target: Path) -> None:
    """From the prompt to one turn around its asset."""
    page = await _window(browser, 1000, 640)
    await page.goto(url)
    await page.wait_for_selector("#save-ply:not([disabled])")
    frames = [(await _frame(page), STEP_MS)]
    for end in range(6, len(PROMPT) + 6, 6):
        await page.fill("#prompt", PROMPT[:end])
        frames.append((await _frame(page), 200))
    await page.click("#send")
    facts = page.locator("#facts").filter(has_text=PROMPT)
    while not await facts.count():
        frames.append((await _frame(page), STEP_MS))
    await page.locator("#steps").filter(has_text="ready after").wait_for()
    await page.wait_for_selector("#save-ply:not([disabled])")
    await page.wait_for_function(f"() => {_CANVAS}.length > 20000")
    await page.focus("#view")
    for _ in range(TURN_FRAMES):
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await _settled(page)
        frames.append((await _frame(page), FRAME_MS))
    await page.close()
    _save(frames, target)


async def _settled(page: Page) -> None:
    """Until the stage stays as it is: the gaussians are in order for this view."""
    before, same = "", 0
    while same < 2:
        await page.wait_for_timeout(250)
        now = await page.evaluate(_CANVAS)
        same = same + 1 if now == before else 0
        before = now


async def _frame(page: Page) -> Image.Image:
    shot = Image.open(io.BytesIO(await page.screenshot())).convert("RGB")
    return shot.resize((WIDTH, shot.height * WIDTH // shot.width), Image.Resampling.LANCZOS)


def _save(frames: list[tuple[Image.Image, int]], target: Path) -> None:
    first, *rest = [image for image, _ in frames]
    durations = [milliseconds for _, milliseconds in frames]
    for quality in (75, 60, 45, 30):
        first.save(
            target, save_all=True, append_images=rest, duration=durations, loop=0, quality=quality, method=4
        )
        if target.stat().st_size < MOST_BYTES:
            return
    raise RuntimeError(f"{target} is larger than {MOST_BYTES} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if why := missing():
        parser.error(why)
    options.folder.mkdir(parents=True, exist_ok=True)
    arguments = ("--demo", "--validators", "3", "--max-gaussians", "60000")
    with tempfile.TemporaryDirectory() as folder, local_stack(Path(folder), *arguments) as url:
        asyncio.run(take(options.folder, url))


if __name__ == "__main__":
    main()
