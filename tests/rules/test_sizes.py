"""No module over 400 lines and no function over 80; what is over today may only shrink."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE_LINES = 400
FUNCTION_LINES = 80


def sizes() -> Iterator[tuple[str, int, int]]:
    """Name, lines and limit of every module and function of the source trees."""
    members = ("*", "[!.]*/*", "[!.]*/*/[!.]*")
    folders = [file.parent / "src" for each in members for file in ROOT.glob(f"{each}/pyproject.toml")]
    for file in (file for folder in folders for file in folder.rglob("*.py")):
        name = str(file.relative_to(ROOT))
        text = file.read_text()
        yield name, text.count("\n"), MODULE_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1, FUNCTION_LINES


def test_modules_and_functions_stay_small() -> None:
    assert {name: lines for name, lines, limit in sizes() if lines > limit} == {}
