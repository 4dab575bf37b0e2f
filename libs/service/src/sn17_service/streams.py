"""Large answers: kept on the disk for slow clients, sent in pieces."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Final

_IN_MEMORY: Final = 16 * 1024**2
_PIECE: Final = 256 * 1024
#: Entries carry no time of their own, so that the same results give the same bytes.
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)


def zip_of(entries: Iterable[tuple[str, Callable[[], bytes]]]) -> IO[bytes]:
    """A rewound file with the entries as they are; each is made only when it is its turn."""
    target: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the caller closes it)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for name, content in entries:
                archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), content())
    except BaseException:
        target.close()
        raise
    target.seek(0)
    return target


def spooled(content: bytes) -> tuple[int, IO[bytes]]:
    """Size and rewound file: what is large waits on the disk for a slow client."""
    target: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the reader closes it)
    target.write(content)
    target.seek(0)
    return len(content), target


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file, which is closed at the end."""
    with file:
        while piece := file.read(_PIECE):
            yield piece
