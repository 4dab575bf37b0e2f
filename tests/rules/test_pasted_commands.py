"""Commands that docs and messages advise: they fail when they fail, and name what exists."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = (".venv", ".bootstrap", ".git", ".sn17", "results", "shared", "node_modules")
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "operator/README.md"]
PANEL = re.compile(r"panels? \*([^*]+)\*")
ITALICS = re.compile(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)")


def sources() -> Iterator[Path]:
    for ending in ("*.py", "*.md", "*.txt", "*.tpl", "*.yaml"):
        for path in ROOT.rglob(ending):
            if path != Path(__file__) and not set(SKIPPED) & set(path.relative_to(ROOT).parts):
                yield path


def packages() -> dict[str, set[str]]:
    """Extras of each package of the workspace."""
    found = {}
    for path in ROOT.rglob("pyproject.toml"):
        if not set(SKIPPED) & set(path.relative_to(ROOT).parts):
            project = tomllib.loads(path.read_text()).get("project")
            if project:
                found[project["name"]] = set(project.get("optional-dependencies", {}))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_curl_of_a_page_fails_on_an_error_answer(page: Path) -> None:
    for line in re.findall(r"(?:^\s*|`)(curl .*)$", page.read_text(), re.MULTILINE):
        if "://" in line or re.search(r"curl [^|]*\d+\.\d+\.\d+\.\d+", line):
            assert re.search(r"--fail|\s-[a-zA-Z]*f", line), f"{page.name}: {line}"


def test_packages_and_extras_that_an_advice_names_exist() -> None:
    known = packages()
    assert "sn17" in known
    for path in sources():
        text = path.read_text(errors="replace")
        for name, extra in re.findall(r"--package (sn17[\w-]*)(?: --extra ([\w-]+))?", text):
            assert name in known, f"{path}: {name}"
            assert not extra or extra in known[name], f"{path}: {name}[{extra}]"
        # No package of ours is published: from a clone it is uv sync.
        assert not re.search(r"install '?\"?sn17[\w-]*\[", text), path


def boards() -> dict[str, set[str]]:
    """Panels of each board, by its title."""
    found = {}
    for file in (ROOT / "charts/sn17/dashboards").glob("*.json"):
        board = json.loads(file.read_text())
        found[board["title"].removeprefix("sn17 / ")] = {panel["title"] for panel in board["panels"]}
    return found


def test_docs_name_panels_that_a_board_has() -> None:
    titles = set().union(*boards().values())
    named = [(page.name, title) for page in PAGES for title in PANEL.findall(page.read_text())]
    assert len(named) >= 2
    assert [each for each in named if each[1] not in titles] == []


def test_whatever_a_runbook_writes_in_italics_is_a_board_or_a_panel() -> None:
    known = set(boards()).union(*boards().values()) | {"Last State"}  # of kubectl describe
    named = [
        (page.name, title)
        for page in sorted((ROOT / "docs/runbooks").glob("*.md"))
        for title in ITALICS.findall(page.read_text())
    ]
    assert len(named) >= 20
    assert [each for each in named if each[1] not in known] == []


def test_the_page_for_on_call_names_each_panel_with_its_board() -> None:
    known = boards()
    text = (ROOT / "docs/operations.md").read_text()
    named = re.findall(rf"({'|'.join(known)}): ((?:\*[^*]+\*(?:, )?)+)", text)
    assert len(named) >= 15
    assert [
        (board, panel)
        for board, panels in named
        for panel in ITALICS.findall(panels)
        if panel not in known[board]
    ] == []
    assert set(re.findall(r"board \*([^*]+)\*", text)) <= set(known)
