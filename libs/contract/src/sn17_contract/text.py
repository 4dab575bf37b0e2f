"""Text that others wrote, before a person reads it on a terminal or in a log."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = frozenset("\u200c\u200d")
"""Zero-width joiners: scripts and emoji need them, and they move nothing."""
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls, format characters (direction overrides among them), lone surrogates, line and paragraph ends."""


def neutralise(text: str, *, lines: bool = False) -> str:
    r"""The text with every character that could steer a terminal or forge a line written as its escape.

    ``\x1b[2J`` is shown as these six characters. ``lines`` keeps line feeds, for text of several lines that
    is the project's own, as a table or a traceback. The result of a second call is that of the first.
    """
    if text.isprintable():
        return text
    return "".join(
        character if (lines and character == "\n") or not _unsafe(character) else _escaped(character)
        for character in text
    )


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def neutral_json(text: str) -> str:
    r"""A JSON document with the same value and no character that steers a terminal: ``\uXXXX`` instead.

    JSON forbids most controls in strings by itself, but neither C1 controls nor direction overrides.
    """
    return "".join(
        character if character in " \n\r\t" or not _unsafe(character) else _json_escaped(character)
        for character in text
    )


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
