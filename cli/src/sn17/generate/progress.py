"""How far a run of ``generate`` is: a bar on a terminal, a line for each change elsewhere; standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from sn17.console import live, new_console, say
from sn17.generate.run import Failed, Made
from sn17.generate.wishes import Wish

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LONGEST_STEP: Final = 100


class Progress:
    """Use it as a context manager."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._bar: Bar | None = None
        self._row: TaskID | None = None
        self._steps: dict[str, str] = {}
        self._ended = 0

    def __enter__(self) -> Self:
        console = new_console(error=True)
        if live(console):
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            text = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            self._bar = Bar(
                MofNCompleteColumn(),
                BarColumn(bar_width=16),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False, table_column=text),
                console=console,
                transient=True,
                expand=True,
            )
            self._row = self._bar.add_task("starts", total=self._wanted)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, wish: Wish, text: str) -> None:
        """One wish has come further."""
        if self._steps.get(wish.output) == text:
            return
        self._steps[wish.output] = text
        self._show(f"{wish.output}: {text[:_LONGEST_STEP]}")

    def ended(self, end: Made | Failed) -> None:
        """One wish is done with."""
        self._steps.pop(end.wish.output, None)
        self._ended += 1
        told = "made" if isinstance(end, Made) else "not made"
        self._show(f"{end.wish.output}: {told} ({self._ended} of {self._wanted})")

    def _show(self, line: str) -> None:
        if self._bar is None or self._row is None:
            say(line, error=True)
            return
        self._bar.update(self._row, description=line, completed=self._ended)
