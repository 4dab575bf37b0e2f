"""Docs and code speak the field's English: words that this project once gave a sense of its own stay out."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    ROOT / "charts/sn17/README.head.md",
    ROOT / "charts/sn17/values.yaml",
    ROOT / "charts/sn17/rules/sn17.yaml",
    *sorted((ROOT / "charts/sn17/templates").rglob("*.*")),
    *sorted(ROOT.glob("dev/*/README.md")),
    *sorted((ROOT / "dev/mk").glob("*.mk")),
    ROOT / "Makefile",
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
    r"can not": "cannot",
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


CODE = [
    path
    for folder in ("libs", "services", "operator", "cli", "dev")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not {"tests", ".venv", "node_modules"} & set(path.relative_to(ROOT).parts)
]
KEPT_NAMES = {
    "MEMORY_MARK_RATIO": "a metric and its label, in people's queries",
    "sn17_memory_mark_ratio": "the same",
    'mark="refuse"': "the same",
    'mark="{name}"': "the same",
    '"mark"': "the same",
    "WorkerHealed": "reason of an Event",
    "WORKER_HEALED": "the same",
    "SickWorkers": "reason of a condition",
    "cured": "a field of the resource's status",
    "gaussians_mark": "a column of result files",
    "seconds_to_high_mark": "the same",
    '"strikes"': "the same",
    '"sick"': "the same",
    "start_mark": "PyYAML's",
    "mid-cure": "a name in the fault register, which result files have",
    "middle of its cure": "the same",
    "falls ill": "the same",
    "the ill worker": "the same",
    "marks the ": "the verb",
    "wall clock": "its usual sense",
    "wall-clock": "the same",
    "Wall-clock": "the same",
    "wall time": "the same",
    "a mark for the base": "paint on an object of the toy world",
}
"""Names that others may rely on, and usual senses; the reason for each."""
# From Python 3.12 on the text of an f-string is a token of its own.
TEXTS = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and string, and of each name split into its words."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], " ".join(PART.findall(token.string))
        elif token.type in TEXTS:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line.replace("_", " ")


@cache
def strange_code(source: str) -> list[str]:
    for name in KEPT_NAMES:
        source = source.replace(
            name, "_" if name.isidentifier() else '"_"' if name.startswith('"') else "kept"
        )
    return [
        f"line {line}: {found[0]!r}: say {better}"
        for line, text in words_of(source)
        for word, better in INSTEAD.items()
        for found in re.finditer(rf"(?<![\w.`/])(?:{word})(?![\w`/])", text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_no_private_words(page: Path) -> None:
    assert strange(page.read_text()) == []


def test_a_private_word_is_found_and_its_usual_sense_is_not() -> None:
    text = "# A page\nIt hits the wall, and\na Person cures it; the wall clock does not `mend`.\n"
    assert strange(text) == ["line 2: 'wall': say memory limit", "line 3: 'cures': say remediation"]


def test_code_has_no_private_words() -> None:
    found = {str(path.relative_to(ROOT)): strange_code(path.read_text()) for path in CODE}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_a_private_word_is_found_in_names_texts_and_comments_alike() -> None:
    source = 'HIGH_MARK = 1  # heals\n"""A person\ncures it."""\nmarkdown = f"{HIGH_MARK} walls"\n'
    found = strange_code(source)
    assert sorted(line.partition(": say")[0] for line in found) == [
        "line 1: 'MARK'",
        "line 1: 'heals'",
        "line 3: 'cures'",
        "line 4: 'MARK'",
        "line 4: 'walls'",
    ]
