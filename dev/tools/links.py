#!/usr/bin/env python3
"""Every relative link of every Markdown page leads to a file, every anchor to a heading. Nothing is fetched.

python3 dev/tools/links.py            the whole checkout; exit code 1 names what leads nowhere
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

REPOSITORY = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
REFERENCE = re.compile(r"^\[[^\]]+\]: *(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
SITE_ONLY = re.compile(r"(\.\./)*reference/(settings|metrics|sn17miner|values)\.md")
"""Pages that the documentation site makes while it is built."""


def pages(root: Path) -> list[Path]:
    """Markdown files that git knows or would add."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return [path for name in answer.stdout.splitlines() if (path := root / name).is_file()]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Of each heading as forges and the site make them: lower case, no punctuation, hyphens for spaces."""
    found: dict[str, int] = {}
    names = set()
    for text in HEADING.findall(FENCE.sub("", page.read_text())):
        plain = re.sub(r"[^\w\- ]", "", LINK.sub(lambda m: m[0][1 : m[0].index("]")], text).lower())
        slug = plain.strip().replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return frozenset(names)


def broken(page: Path) -> Iterator[str]:
    """Links of a page that lead nowhere, with the reason."""
    text = CODE.sub("", FENCE.sub("", page.read_text()))
    for target in (*LINK.findall(text), *REFERENCE.findall(text)):
        if re.match(r"[a-z][a-z+.-]*:", target) or SITE_ONLY.match(target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{target}: there is no {path}"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{target}: there is no heading for #{anchor}"


def main(root: Path = REPOSITORY) -> int:
    wrong = [f"{page.relative_to(root)}: {each}" for page in pages(root) for each in broken(page)]
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
