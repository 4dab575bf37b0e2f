"""The one place where a console is made, so that every command behaves alike on a terminal and in a pipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 1000
"""Columns where the output is no terminal and nobody says otherwise: no row of a table is that long."""


def new_console(*, error: bool = False) -> Console:
    """A console on standard output, or on standard error.

    As wide as the terminal; into a pipe or a file wide enough that nothing is cut, unless ``COLUMNS`` says.
    """
    from rich.console import Console

    console = Console(stderr=error, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=error, highlight=False, width=PIPED_WIDTH)
    return console
