"""The one place where output is made, so that every command behaves alike on a terminal and in a pipe."""

from __future__ import annotations

import functools
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from sn17_contract.text import neutral_json, neutralise

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 1000
"""Columns where the output is no terminal and nobody says otherwise: no row of a table is that long."""


def new_console(*, error: bool = False) -> Console:
    """A console on standard output, or on standard error.

    As wide as the terminal; into a pipe or a file wide enough that nothing is cut, unless ``COLUMNS`` says.
    Strings are text and never markup or emoji codes, and whatever could steer the terminal is shown as its
    escape: much of what is shown was written by others. Styles come from ``Text`` and ``style``.
    """
    kind = _console_type()
    _stream(error=error)
    console = kind(stderr=error, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = kind(stderr=error, highlight=False, markup=False, emoji=False, width=PIPED_WIDTH)
    return console


def say(text: str, *, error: bool = False) -> None:
    """Print lines as they are, without wrapping, on standard output or standard error."""
    stream = _stream(error=error)
    stream.write(neutralise(text, lines=True) + "\n")
    stream.flush()


def print_json(text: str) -> None:
    """Print a JSON document on standard output."""
    stream = _stream()
    stream.write(neutral_json(text) + "\n")
    stream.flush()


def _stream(*, error: bool = False) -> TextIO:
    """Standard output or error; what its encoding lacks is written as an escape, never an exception."""
    stream = sys.stderr if error else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


@functools.cache
def _console_type() -> type[Console]:
    """Made on first use: importing rich takes longer than `sn17 --help` should."""
    from collections.abc import Iterable
    from typing import Any

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class NeutralConsole(Console):
        """Shows what others wrote without obeying it."""

        def render_str(self, text: str, **options: Any) -> Text:
            """Strings, before they are measured, so that columns stay aligned."""
            return super().render_str(neutralise(text, lines=True), **options)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            """Everything else, on its way out."""
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(neutralise(segment.text, lines=True), segment.style)

    return NeutralConsole
