"""Ctrl-C, SIGTERM and SIGHUP: the first ends a command in order, the second at once.

Standard library only: this is imported before everything else, so that a signal during the other imports
ends in one sentence, too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
PATIENCE_SECONDS: Final = 5.0
"""For the way out after the first signal; then the process ends at once."""
_SHOW_CURSOR: Final = b"\x1b[?25h"


class Interrupted(SystemExit):
    """A signal. Neither an ``Exception`` nor a ``KeyboardInterrupt``: nothing on the way out handles it."""


class _Received:
    """What came so far. ``told``: the command has said by itself what became of its work."""

    number: int = 0
    told: bool = False
    last_acts: ClassVar[list[Callable[[], Any]]] = []


def install() -> None:
    """Handle the signals that are not ignored, as those of ``nohup`` and of background jobs are."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    signal.signal(signal.SIGALRM, lambda *_: leave(_Received.number))
    sys.unraisablehook = _on_unraisable
    # The first to be registered is the last to be called.
    atexit.register(_deaf)


def received() -> int:
    """The first signal's number, or 0."""
    return _Received.number


def told() -> None:
    """No further sentence is needed about the signal."""
    _Received.told = True


def sentence() -> str | None:
    """What to say of the signal that ended the command; None where that is said already."""
    number = _Received.number
    return None if not number or _Received.told else f"sn17: ended by {NAMES[signal.Signals(number)]}"


@contextlib.contextmanager
def at_once(act: Callable[[], Any]) -> Iterator[None]:
    """While it is held, ``act`` is done also where a command ends without any clean-up."""
    _Received.last_acts.append(act)
    try:
        yield
    finally:
        _Received.last_acts.remove(act)


@contextlib.contextmanager
def handled_by(handler: Callable[[int], Any]) -> Iterator[None]:
    """``handler(number)`` is called for every signal in place of ending the command."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, lambda got, _: handler(got))
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def leave(number: int) -> NoReturn:
    """End the process now, without any clean-up but the last acts and the terminal's cursor."""
    for act in _Received.last_acts:
        with contextlib.suppress(Exception):
            act()
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(stream):
                os.write(stream, b"\r\n" if os.environ.get("TERM") == "dumb" else _SHOW_CURSOR + b"\r\n")
                break
    os._exit(128 + number)


def _on_signal(number: int, _: Any) -> None:
    if _Received.number:
        leave(number)
    _Received.number = number
    if "logging" in sys.modules:
        # Tasks that were cut off are no news.
        sys.modules["logging"].getLogger("asyncio").disabled = True
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    raise Interrupted(128 + number)


def _deaf() -> None:
    """All is done: the interpreter's own end, which gives up the handlers, is not to be killed any more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _on_unraisable(unraisable: Any) -> None:
    """A signal that came inside a finaliser is not lost."""
    if isinstance(unraisable.exc_value, Interrupted):
        leave(_Received.number)
    if not _Received.number:
        sys.__unraisablehook__(unraisable)
