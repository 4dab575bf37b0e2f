"""What mkdocs calls: adds the generated pages, and turns links out of docs/ into links to them."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import reference

#: Files outside docs/ that pages link to, and the page of the site that says the same.
ELSEWHERE = {"../charts/sn17/README.md": "reference/values.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, which is not kept in the repository."""
    for path, text in reference.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links at the site's own pages."""
    for outside, inside in ELSEWHERE.items():
        markdown = markdown.replace(f"]({outside}", f"]({inside}")
    return markdown
