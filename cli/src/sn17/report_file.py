"""The result of a long command as JSON: checked before it begins, written when it ends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sn17_files import write_atomically

from sn17.console import print_json

STDOUT = "-"


class ReportError(OSError):
    """The report cannot be written there; the message names the path and says what to do."""


@dataclass(frozen=True, slots=True)
class ReportTarget:
    """Where the result goes: ``--report FILE``, with ``-`` for standard output, and ``--json`` for that."""

    file: Path | None
    stdout: bool

    @classmethod
    def of(cls, report: str | None, json: bool) -> ReportTarget:
        """From the two options.

        Raises:
            ReportError: the folder is missing or not writable, or the path is a folder.
        """
        file = None if report in (None, STDOUT) else Path(str(report))
        if file is not None:
            _check(file)
        return cls(file, json or report == STDOUT)

    def write(self, document: str) -> None:
        """Write the result.

        Raises:
            ReportError: the disk is full or broken.
        """
        if self.file is not None:
            try:
                write_atomically(self.file, document.encode() + b"\n")
            except OSError as error:
                raise ReportError(f"{self.file}: {error.strerror}: the report is not written") from error
        if self.stdout:
            print_json(document)


def _check(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise ReportError(f"{path} is a folder: --report takes a file")
    if not folder.is_dir():
        raise ReportError(f"{folder} does not exist: --report needs a folder that is there")
    if not os.access(folder, os.W_OK):
        raise ReportError(f"{folder} is not writable: --report needs one that is")
