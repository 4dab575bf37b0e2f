"""Where the ``sn17`` command begins and ends: whatever happens is one sentence and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from sn17 import interrupts
from sn17.exits import Exit, sentence

TRACEBACK = "SN17_TRACEBACK"
"""Environment variable with which a fault shows where it is."""


def main() -> NoReturn:
    """Entry point."""
    interrupts.install()
    sys.stdout, sys.stderr = _usable(sys.stdout), _usable(sys.stderr)
    code = ended(_commands)
    if interrupts.received():
        code = 128 + interrupts.received()
        if (sentence := interrupts.sentence()) is not None:
            _complain(("\n" if sys.stderr.isatty() else "") + sentence)
    if (colorama := sys.modules.get("colorama.initialise")) is not None:
        # A library's guest: it would reset the colours of a terminal that has none.
        atexit.unregister(colorama.reset_all)
    code = _flushed(code)
    if interrupts.received():
        # Threads that wait for an answer would be waited for.
        os._exit(code)
    sys.exit(code)


def _commands() -> None:
    from sn17.commands import app

    app()


def ended(call: Callable[[], Any]) -> int:
    """The exit code of ``call``."""
    try:
        call()
    except SystemExit as end:
        if _pipe_closed():
            return Exit.PIPE_CLOSED
        return end.code if isinstance(end.code, int) else Exit.DONE if end.code is None else Exit.NO
    except BaseException as error:
        if interrupts.received():
            return Exit.INTERRUPTED
        return _failed(error)
    return Exit.DONE


def _failed(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        return Exit.PIPE_CLOSED
    if os.environ.get(TRACEBACK):
        import traceback

        _complain(traceback.format_exc())
    if isinstance(error, OSError) and error.strerror:
        _complain(f"sn17: {sentence(error)}")
        return Exit.CANNOT
    said = " ".join(str(error).split())
    _complain(f"sn17: a fault of sn17: {type(error).__name__}: {said} ({TRACEBACK}=1 shows where)")
    return Exit.FAULT


def _pipe_closed() -> bool:
    """Click turns a closed pipe into exit code 1, and leaves this behind."""
    return type(sys.stdout).__name__ == "PacifyFlushWrapper"


def _usable(stream: TextIO | None) -> TextIO:
    """A stream that takes any text; nothing is written where there is none."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _flushed(code: int) -> int:
    """``code``, or that of an output that took nothing any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or Exit.PIPE_CLOSED
    except OSError as error:
        _complain(f"sn17: standard output: {error.strerror}")
        code = code or Exit.CANNOT
    else:
        return code
    # The interpreter flushes once more at its end.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _complain(sentence: str) -> None:
    from sn17.console import say

    with contextlib.suppress(OSError):
        say(sentence, error=True)
