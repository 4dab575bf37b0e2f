"""The page in a real browser, over the real gateway, with a miner that says what the test wants."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_miner import NOW, splats, task, worker
from page_rig import WAIT_MS, Rig
from page_steps import complaints, download, look, shown, until_it_looks_other, until_text
from sn17_bench.browser import renderer_mib
from sn17_splats import decode_spz, encode_spz, read_ply

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")
MOST_MIB = 500
EARLIER: dict[str, Any] = {
    "how": "swap",
    "outcome": "done",
    "reason": "memory above 80 %",
    "from_life": "a",
    "to_life": "b",
    "at": NOW - 60,
}


async def test_an_asset_turns_says_where_it_is_from_and_is_saved_in_both_formats(
    page: Page, served: Rig
) -> None:
    served.miner.tasks[1] |= {"door": "mine", "outcome": "rejected", "score": 0.2}
    await page.goto(served.url)
    assert await shown(page) == "2,000"
    await until_it_looks_other(page, await look(page))
    await page.click("#list li:nth-child(2) button")
    await until_text(page, "#facts", "rejected (score 0.20)")
    facts = await page.inner_text("#facts")
    assert all(word in facts for word in ("mine", "1001", "11 s", "exact", "yes")), facts
    name, ply = await download(page, "#save-ply")
    assert (name, len(read_ply(ply))) == ("task-1.ply", 2000)
    name, spz = await download(page, "#save-spz")
    assert (name, spz) == ("task-1.spz", served.miner.assets[1])
    assert len(decode_spz(spz)) == 2000


async def test_a_swap_is_seen_as_it_happens(page: Page, served: Rig) -> None:
    await page.goto(served.url)
    await until_text(page, "#workers", "ready")
    assert await page.inner_text("#events") == ""
    served.miner.workers = [worker(recycling="swap", model_processes=2)]
    await until_text(page, "#workers", "ready, swap under way")
    await until_text(page, "#events", "trellis-0: swap has begun")
    served.miner.workers = [worker(last_recycle=EARLIER)]
    await until_text(page, "#events", "trellis-0: swap done, memory above 80 %")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_in_any_view(context: BrowserContext, served: Rig, scheme: Any) -> None:
    served.miner.workers = [worker(), {**worker(recycling="swap", last_recycle=EARLIER), "name": "trellis-1"}]
    page = await context.new_page()
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.goto(served.url)
    await shown(page)
    await page.click("#send")
    await until_text(page, "#ask-error", "Describe the asset")
    await page.fill("#prompt", "a red cube")
    await page.click("#send")
    await until_text(page, "#steps", "a red cube")
    assert await complaints(page) == []
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await complaints(page) == []
    await page.goto(served.url_elsewhere)
    await page.wait_for_selector("#key")
    assert await complaints(page) == []


async def test_everything_is_done_by_keyboard(page: Page, served: Rig) -> None:
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(served.url)
    await shown(page)
    seen: list[str] = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        seen.append(await page.evaluate("document.activeElement.id || document.activeElement.className"))
        if seen[-1] == "door":
            break
    for wanted in (
        "skip",
        "prompt",
        "picture",
        "seed",
        "send",
        "view",
        "turn",
        "save-ply",
        "save-spz",
        "door",
    ):
        assert wanted in seen, seen
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await until_text(page, "#list [aria-current=true]", "number 1")
    await until_text(page, "#facts", "number 1")
    await page.focus("#view")
    before = await look(page)
    await page.keyboard.press("ArrowLeft")
    await until_it_looks_other(page, before)
    await page.focus("#prompt")
    await page.keyboard.type("a wooden chair")
    await page.focus("#send")
    await page.keyboard.press("Space")
    await until_text(page, "#steps", "a wooden chair")


async def test_a_phone_shows_all_of_it_without_scrolling_sideways(page: Page, served: Rig) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    served.miner.tasks[0] |= {"prompt": "an_endless_word_" * 20}
    await page.goto(served.url)
    await shown(page)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in await page.locator("button:visible").all():
        box = await button.bounding_box()
        assert box is not None
        assert box["height"] >= 40
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


async def test_elsewhere_one_logs_in_by_key(page: Page, served: Rig) -> None:
    key = served.create_key("a person")
    await page.goto(served.url_elsewhere)
    await page.fill("#key", "9d3b2c1e-0000-4000-8000-00000000dead")
    await page.keyboard.press("Enter")
    await until_text(page, "#login-error", "does not know this key")
    assert not await page.is_visible("#main")
    await page.fill("#key", key)
    await page.keyboard.press("Enter")
    assert await shown(page) == "2,000"
    await page.fill("#prompt", "a red cube")
    await page.click("#send")
    await until_text(page, "#steps", "a red cube")
    await page.reload()
    await shown(page)
    assert key not in await page.content()
    assert key not in page.url


async def test_two_hundred_assets_are_listed_and_drawn_as_they_come_into_sight(
    browser: Browser, page: Page, served: Rig
) -> None:
    served.miner.tasks = [task(n) for n in range(200, 0, -1)]
    assets = [encode_spz(splats(8000, seed=seed)) for seed in range(5)]
    served.miner.assets = {n: assets[n % 5] for n in range(1, 201)}
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(served.url)
    await page.wait_for_selector("#list li:nth-child(200)", state="attached")
    await page.wait_for_selector("#list li:nth-child(1) .thumb.ready")
    assert await page.locator(".thumb.ready").count() < 200
    for place in range(1, 201, 8):
        await page.locator(f"#list li:nth-child({place})").scroll_into_view_if_needed()
        await page.wait_for_selector(f"#list li:nth-child({place}) .thumb.ready", state="attached")
    assert await page.locator(".thumb.ready").count() > 150
    assert await renderer_mib(browser) < MOST_MIB


async def test_seven_hundred_thousand_gaussians_are_shown(browser: Browser, page: Page, served: Rig) -> None:
    served.miner.tasks = [task(1)]
    served.miner.assets = {1: encode_spz(splats(700_000))}
    page.set_default_timeout(3 * WAIT_MS)
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(served.url)
    assert await shown(page, drawn=False) == "700,000"
    await page.wait_for_selector("#list .thumb.ready")
    assert await renderer_mib(browser) < MOST_MIB


async def test_a_broken_asset_says_so_and_the_next_one_is_shown(page: Page, served: Rig) -> None:
    served.miner.tasks = [task(n) for n in (3, 2, 1)]
    served.miner.assets |= {2: b"no splat"}
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(served.url)
    empty = await look(page)
    await until_text(page, "#view-note", "It cannot be shown: no asset of task 3 is kept")
    assert await page.is_disabled("#save-spz")
    await page.click("#list li:nth-child(2) button")
    await until_text(page, "#view-note", "It cannot be shown: the kept asset cannot be read")
    await page.click("#list li:nth-child(3) button")
    assert await shown(page) == "2,000"
    assert await page.inner_text("#view-note") == ""
    await until_it_looks_other(page, empty)
    await page.click("#list li:nth-child(2) button")
    await until_text(page, "#view-note", "It cannot be shown: the kept asset cannot be read")
    assert await page.get_attribute("#view", "aria-label") == "No asset is shown"


async def test_the_page_goes_on_when_the_gateway_comes_back(page: Page, served: Rig) -> None:
    await page.goto(served.url)
    await shown(page)
    served.gateway.kill()
    await until_text(page, "#summary", "The gateway does not answer. Trying again.")
    served.miner.tasks.insert(0, task(9, kept=False, prompt="made in the meantime"))
    served.gateway.start()
    await until_text(page, "#list", "made in the meantime")
    await until_text(page, "#summary", "0 waiting")
    await page.click("#list li:last-child button")
    await until_text(page, "#facts", "number 1")


async def test_text_of_others_is_never_markup(page: Page, served: Rig) -> None:
    served.miner.tasks[0] |= {"prompt": "<img src=x onerror='window.bad=1'><b>bold</b>"}
    served.miner.workers = [{**worker(), "state": "refusing", "reason": "<script>window.bad=1</script>"}]
    await page.goto(served.url)
    await shown(page)
    await until_text(page, "#facts", "<b>bold</b>")
    await until_text(page, "#workers", "refusing: <script>")
    assert await page.evaluate("window.bad === undefined && !document.querySelector('main b, main img')")


async def test_a_picture_is_asked_with(page: Page, served: Rig, tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    await page.goto(served.url)
    await page.set_input_files(
        "#picture", {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    await page.fill("#prompt", "and words")
    await page.click("#send")
    await until_text(page, "#ask-error", "Give words or a picture, not both.")
    await page.fill("#prompt", "")
    await page.click("#send")
    await until_text(page, "#steps", "(a picture)")
    await until_text(page, "#steps", "waiting, 1 in the queue")
