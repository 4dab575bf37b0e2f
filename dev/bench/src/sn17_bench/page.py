"""The page in Chromium: first paint and prompt to a turning splat over a real `sn17 up`, and its memory.

    make test-browser                                     # once: installs the group browser
    python -m sn17_bench.page [--assets 200] [--repeat 5] [--json FILE]

Draws in software. The browser runs already when the clock starts, as a person's does; every first paint is
that of a new profile with an empty cache. For the memory the gateway is real, and the miner behind it is
that of the page's tests, with 200 assets at once. Baselines of the same run: the paint of an empty page, and
the memory before the list is scrolled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from sn17_splats import encode_spz

from sn17_bench.browser import missing, opened, renderer_mib
from sn17_bench.page_stack import local_stack
from sn17_bench.stamp import stamp

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

WAIT_MS: Final = 300_000
FIRST_PAINT_GOAL_MS: Final = 1000.0
SPLAT_GOAL_SECONDS: Final = 10.0
MEMORY_GOAL_MIB: Final = 500.0
GAUSSIANS: Final = 30_000
_CHANGED: Final = (
    "([before]) => { const now = document.getElementById('view').toDataURL(); return now !== before; }"
)


async def first_paint_ms(browser: Browser, url: str) -> float:
    """Milliseconds from the navigation's start to the first paint, with an empty cache."""
    async with await browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = await context.new_page()
        await page.goto(url)
        code = "() => performance.getEntriesByName('first-paint')[0]?.startTime"
        found = await page.wait_for_function(code, timeout=WAIT_MS)
        return float(await found.json_value())


async def splat_seconds(page: Page, prompt: str) -> float:
    """Seconds from the click on the button to a stage that shows the asset and turns it."""
    before = await page.evaluate("document.getElementById('view').toDataURL()")
    await page.fill("#prompt", prompt)
    started = time.monotonic()
    await page.click("#send")
    await page.locator("#facts").filter(has_text=prompt).wait_for(timeout=WAIT_MS)
    await page.wait_for_selector("#save-ply:not([disabled])", timeout=WAIT_MS)
    await page.wait_for_function(_CHANGED, arg=[before], timeout=WAIT_MS, polling=50)
    shown = await page.evaluate("document.getElementById('view').toDataURL()")
    await page.wait_for_function(_CHANGED, arg=[shown], timeout=WAIT_MS, polling=50)
    return time.monotonic() - started


async def list_mib(browser: Browser, url: str, assets: int) -> dict[str, float]:
    """Memory of the page's process, before and after every asset of the list was in sight."""
    async with await browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = await context.new_page()
        page.set_default_timeout(WAIT_MS)
        await page.goto(url)
        await page.wait_for_selector("#save-ply:not([disabled])")
        before = most = await renderer_mib(browser)
        await page.click("#turn")
        for place in range(1, assets + 1, 4):
            await page.locator(f"#list li:nth-child({place})").scroll_into_view_if_needed()
            await page.wait_for_selector(f"#list li:nth-child({place}) .thumb.ready", state="attached")
            most = max(most, await renderer_mib(browser))
        drawn = await page.locator(".thumb.ready").count()
        return {"page_mib": before, "list_mib": most, "listed": assets, "drawn": drawn}


async def measure(assets: int, repeat: int) -> dict[str, Any]:
    """All figures."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with opened() as browser:
            await first_paint_ms(browser, "data:text/html,warm")
            found["empty_paint_ms"] = [
                await first_paint_ms(browser, "data:text/html,<p>empty") for _ in range(repeat)
            ]
            (Path(folder) / "a").mkdir()
            with local_stack(Path(folder) / "a", "--validators", "1", "--max-gaussians", "60000") as url:
                found["first_paint_ms"] = [await first_paint_ms(browser, url) for _ in range(repeat)]
                page = await browser.new_page(viewport={"width": 1280, "height": 900})
                await page.goto(url)
                found["splat_seconds"] = [
                    await splat_seconds(page, f"a red cube on a table {n}") for n in range(repeat)
                ]
                await page.close()
            (Path(folder) / "b").mkdir()
            with _listed(Path(folder) / "b", assets) as url:
                found |= {"gaussians": GAUSSIANS, **await list_mib(browser, url, assets)}
    return found


@contextmanager
def _listed(folder: Path, assets: int) -> Iterator[str]:
    """The page's address at a gateway whose miner has so many assets."""
    root = Path(__file__).resolve().parents[4]
    sys.path += [str(root / part) for part in ("libs/page/tests", "services/gateway/tests", "tests/browser")]
    from page_miner import splats, task
    from page_rig import rig

    with rig(folder) as served:
        different = [encode_spz(splats(GAUSSIANS, seed)) for seed in range(10)]
        served.miner.tasks = [task(n) for n in range(assets, 0, -1)]
        served.miner.assets = {n: different[n % 10] for n in range(1, assets + 1)}
        yield served.url


def rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What, measured, goal and baseline."""
    paint, empty, splat = (found[name] for name in ("first_paint_ms", "empty_paint_ms", "splat_seconds"))
    yield (
        "first paint, p50 (slowest)",
        f"{median(paint):.0f} ms ({max(paint):.0f} ms)",
        f"< {FIRST_PAINT_GOAL_MS:.0f} ms; an empty page {median(empty):.0f} ms",
    )
    yield (
        "prompt to a turning splat, p50 (slowest)",
        f"{median(splat):.1f} s ({max(splat):.1f} s)",
        f"< {SPLAT_GOAL_SECONDS:.0f} s",
    )
    yield (
        f"memory of the page, {found['listed']} assets listed, {found['drawn']} drawn",
        f"{found['list_mib']:.0f} MiB",
        f"< {MEMORY_GOAL_MIB:.0f} MiB; before {found['page_mib']:.0f} MiB",
    )


def reached(found: dict[str, Any]) -> bool:
    """Whether every goal is reached, by the medians."""
    return (
        median(found["first_paint_ms"]) < FIRST_PAINT_GOAL_MS
        and median(found["splat_seconds"]) < SPLAT_GOAL_SECONDS
        and found["list_mib"] < MEMORY_GOAL_MIB
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if why := missing():
        parser.error(why)
    found = {
        **stamp(),
        **asyncio.run(measure(options.assets, options.repeat)),
    }
    print("| what | measured | goal and baseline |\n|---|---|---|")
    for row in rows(found):
        print("| " + " | ".join(row) + " |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if reached(found) else 1


if __name__ == "__main__":
    sys.exit(main())
