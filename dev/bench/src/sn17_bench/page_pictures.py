"""Pictures of the page for the docs, and an animation, from a real run of `sn17 up --demo` in Chromium.

python -m sn17_bench.page_pictures FOLDER [--only NAME]
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

PROMPT: Final = "three pink pyramids on an orange table"
WAIT_MS: Final = 300_000
ASSETS: Final = 10
WIDTH: Final = 800
FRAME_MS: Final = 140
STEP_MS: Final = 400
MOST_BYTES: Final = 1_500_000
#: One key press turns by 0.15 rad, so that these frames of two presses each are one turn.
TURN_FRAMES: Final = 21
_CANVAS: Final = "document.getElementById('view').toDataURL()"
#: Whether anything is on the stage, however small its canvas is.
_DRAWN: Final = """() => {
  const small = new OffscreenCanvas(64, 64).getContext("2d");
  small.drawImage(document.getElementById("view"), 0, 0, 64, 64);
  return small.getImageData(0, 0, 64, 64).data.some((value, at) => at % 4 === 3 && value > 100);
}"""


async def take(folder: Path, url: str, only: list[str]) -> None:
    """The named pictures, or all of them."""
    async with opened() as browser:
        for name, picture in PICTURES.items():
            if not only or name in only:
                print(f"{name}...", flush=True)
                await picture(browser, url, folder)


async def _desk(browser: Browser, url: str, folder: Path) -> None:
    """The whole page, dark and light, and its list of assets."""
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
    await page.context.close()


async def _window(browser: Browser, width: int, height: int) -> Page:
    """Of one pixel to a point: software draws four times as many for twice the scale, which takes minutes."""
    context = await browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    return page


async def _choose_accepted(page: Page) -> None:
    await page.locator("#list button").filter(has_text="accepted (score").first.click()
    await page.locator("#facts").filter(has_text="accepted (score").wait_for()
    await page.wait_for_selector("#save-ply:not([disabled])")
    # A browser draws no frames of what is out of sight, and on a phone the list is far from the stage.
    await page.locator("#view").scroll_into_view_if_needed()
    await page.wait_for_function(_DRAWN, polling=300)
    await _settled(page)


async def _thumbs(page: Page) -> None:
    """Until every asset in sight has its picture."""
    await page.locator("#assets").scroll_into_view_if_needed()
    await page.wait_for_selector("#list li:nth-child(8) .thumb.ready", state="attached")
    await page.wait_for_timeout(5000)


async def _phone(browser: Browser, url: str, folder: Path) -> None:
    page = await _window(browser, 390, 844)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.goto(url)
    await _choose_accepted(page)
    await page.evaluate("document.getElementById('stage-title').closest('section').scrollIntoView()")
    await _settled(page)
    await page.screenshot(path=folder / "phone-dark.png")
    await page.context.close()


async def _workers(browser: Browser, url: str, folder: Path) -> None:
    """After a recycle: a swap, or what the guard thought better."""
    page = await _window(browser, 1280, 900)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    await page.goto(url)
    await page.locator("#events li").filter(has_text=" done, ").first.wait_for()
    await page.locator("section:has(#workers)").screenshot(path=folder / "workers-dark.png")
    await page.context.close()


async def _animation(browser: Browser, url: str, folder: Path) -> None:
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
    await page.wait_for_function(_DRAWN, polling=300)
    await page.focus("#view")
    for _ in range(TURN_FRAMES):
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await _settled(page)
        frames.append((await _frame(page), FRAME_MS))
    await page.context.close()
    _save(frames, folder / "page.webp")


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


PICTURES: Final = {"workers": _workers, "desk": _desk, "animation": _animation, "phone": _phone}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=PICTURES, default=[])
    options = parser.parse_args()
    if why := missing():
        parser.error(why)
    options.folder.mkdir(parents=True, exist_ok=True)
    arguments = ("--demo", "--validators", "3", "--max-gaussians", "60000")
    with tempfile.TemporaryDirectory() as folder, local_stack(Path(folder), *arguments) as url:
        asyncio.run(take(options.folder, url, options.only))


if __name__ == "__main__":
    main()
