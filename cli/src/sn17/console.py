"""The one place where output is made, so that every command behaves alike on a terminal and in a pipe."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

from sn17_contract.text import neutral_json, neutralise

from sn17.exits import Exit

if TYPE_CHECKING:
    from rich.console import Console

_ERRNO = re.compile(r"\[Errno -?\d+\] ")
PIPED_WIDTH = 1000
"""Columns where the output is no terminal and nobody says otherwise: no row of a table is that long."""


ASCII_GLYPHS = dict(zip("▁▂▃▄▅▆▇█✓✗·…–—━─│╺╸", ".:-=+*#@+x.~----|--", strict=True))
"""Of what our own tables draw, for terminals without UTF-8."""


def new_console(*, error: bool = False) -> Console:
    """A console on standard output, or on standard error.

    As wide as the terminal; into a pipe or a file wide enough that nothing is cut, unless ``COLUMNS`` says.
    Strings are text and never markup or emoji codes, and whatever could steer the terminal is shown as its
    escape: much of what is shown was written by others. Styles come from ``Text`` and ``style``.
    """
    kind = console_type()
    _stream(error=error)
    console = kind(stderr=error, highlight=False, markup=False, emoji=False)
    if not os.environ.get("COLUMNS", "").isdecimal():
        if not console.is_terminal:
            return kind(stderr=error, highlight=False, markup=False, emoji=False, width=PIPED_WIDTH)
        if console.is_dumb_terminal:
            # Rich takes 80 columns for granted there.
            width = _columns(2 if error else 1)
            return kind(stderr=error, highlight=False, markup=False, emoji=False, width=width)
    return console


def live(console: Console) -> bool:
    """Whether what is shown can be replaced: on a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


def plain(text: str, encoding: str) -> str:
    """``text`` with what ``encoding`` lacks replaced, as wide as before."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_plain_character(character, encoding) for character in text)
    return text


def _plain_character(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        from rich.cells import cell_len

        return ASCII_GLYPHS.get(character, "?" * cell_len(character))
    return character


def _columns(stream: int) -> int | None:
    try:
        return os.get_terminal_size(stream).columns or None
    except OSError:
        return None


def say(text: str, *, error: bool = False) -> None:
    """Print lines as they are, without wrapping, on standard output or standard error."""
    stream = _stream(error=error)
    if error:
        # The number says nothing that the words after it do not.
        text = _ERRNO.sub("", text)
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
def console_type() -> type[Console]:
    """Made on first use: importing rich takes longer than `sn17 --help` should."""
    from collections.abc import Iterable
    from typing import Any

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class NeutralConsole(Console):
        """Shows what others wrote without obeying it."""

        def on_broken_pipe(self) -> None:
            """The reader has gone: nothing more is written, not even at the interpreter's end."""
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
            raise SystemExit(Exit.PIPE_CLOSED)

        def render_str(self, text: str, **options: Any) -> Text:
            """Strings, before they are measured, so that columns stay aligned."""
            return super().render_str(neutralise(text, lines=True), **options)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            """Everything else, on its way out."""
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                    continue
                text = segment.text
                if not text.isprintable():
                    text = neutralise(text, lines=True)
                yield Segment(plain(text, self.encoding), segment.style)

    return NeutralConsole
