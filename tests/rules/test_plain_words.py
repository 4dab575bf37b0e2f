"""Docs speak the field's English: words that this project once used in a sense of its own stay out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    ROOT / "charts/sn17/README.head.md",
]
INSTEAD = {
    r"mend(?:s|ed|ing)?": "fix",
    r"walls?": "memory limit",
    r"marks?": "threshold, target",
    r"strikes?|struck": "fault, inject",
    r"guardians?": "set-up",
    r"books": "records",
    r"arrows": "imports",
    r"rooms|the house": "packages",
    r"sick|sickness": "degraded, unhealthy",
    r"ill": "degraded",
    r"cures?|cured": "remediation",
    r"heals?|healed": "recovers, recovered",
    r"cannot": "cannot",
    r"stand-ins?|stands in for": "instead of",
    r"closed list": "enumeration",
    r"nine (?:cases )?of ten|nine prompts of ten|9 of 10|19 of 20": "p90, p95, a percentage",
    r"restart(?:s|ed)? (?:\w+ )?in place": "container restart",
    r"for want of": "for lack of, OOM",
}
ALLOWED = (
    "wall clock",
    "question marks",
    "`mark`",  # a name that the change log says is gone
)
"""Phrases in which such a word has its usual sense."""
FAULTS = re.compile(r"<!-- chaos:table -->.*?<!-- /chaos:table -->", re.DOTALL)
"""Names of the fault register, as result files have them."""


def strange(text: str) -> list[str]:
    """Words to replace in a text, each with the line it is in and what to say."""
    text = FAULTS.sub(lambda found: "\n" * found[0].count("\n"), text)
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    return [
        f"line {number}: {found[0]!r}: say {better}"
        for number, line in enumerate(text.splitlines(), 1)
        for word, better in INSTEAD.items()
        for found in re.finditer(rf"(?<![\w.`/-])(?:{word})(?![\w`/-])", line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_no_private_words(page: Path) -> None:
    assert strange(page.read_text()) == []


def test_a_private_word_is_found_and_its_usual_sense_is_not() -> None:
    text = "# A page\nIt hits the wall, and\na Person cures it; the wall clock does not `mend`.\n"
    assert strange(text) == ["line 2: 'wall': say memory limit", "line 3: 'cures': say remediation"]
