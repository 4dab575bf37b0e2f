"""Logs as they grow."""

from __future__ import annotations

from pathlib import Path


class NewLines:
    """Whole lines that files have gained since they were read last."""

    def __init__(self) -> None:
        self._read: dict[Path, int] = {}

    def new(self, path: Path) -> str:
        """Nothing for a file that is not there, or not any more."""
        start = self._read.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(start)
                text = file.read()
        except OSError:
            return ""
        whole = text[: text.rfind(b"\n") + 1]
        self._read[path] = start + len(whole)
        return whole.decode(errors="replace")
