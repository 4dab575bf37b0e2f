"""The page of a real local run: asks of one's own, tasks of validators, and a worker that is swapped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_steps import download, look, shown, until_it_looks_other, until_text
from PIL import Image
from sn17_bench.page_stack import local_stack
from sn17_splats import decode_spz, read_ply

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.asyncio(loop_scope="module")
SWAP_MS = 240_000


async def test_from_words_and_a_picture_to_files_while_the_fleet_works(page: Page, tmp_path: Path) -> None:
    with local_stack(tmp_path, "--demo", "--validators", "2", "--max-gaussians", "30000") as url:
        await page.goto(url)
        await page.fill("#prompt", "a red cube on a wooden table")
        await page.click("#send")
        await until_text(page, "#steps li", "ready after")
        gaussians = int((await shown(page)).replace(",", ""))
        await until_it_looks_other(page, await look(page))
        await until_text(page, "#facts", "a red cube on a wooden table")
        for button, read in (("#save-ply", read_ply), ("#save-spz", decode_spz)):
            _, asset = await download(page, button)
            assert len(read(asset)) == gaussians

        picture = tmp_path / "asked.png"
        Image.radial_gradient("L").convert("RGB").save(picture)
        await page.fill("#prompt", "")
        await page.set_input_files("#picture", picture)
        await page.click("#send")
        await until_text(page, "#steps li:first-child", "(a picture)")
        await until_text(page, "#steps li:first-child", "ready after")

        await until_text(page, "#list", "accepted (score")
        await until_text(page, "#list", "validator 1")
        await until_text(page, "#list", "own")
        await page.select_option("#door", "validators")
        await until_text(page, "#success", "%")
        await page.locator("#list button").filter(has_text="accepted (score").first.click()
        await until_text(page, "#facts", "accepted (score")
        facts = await page.inner_text("#facts")
        assert "validator" in facts
        assert "Lane" in facts

        await page.locator("#events").filter(has_text="trellis-2: swap").first.wait_for(timeout=SWAP_MS)
