"""Results as files of splats or meshes: checked when they come, turned into what a client asks for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from sn17_contract.gateway import Model
from sn17_splats import Limits, SplatError, decode_spz, write_ply

_GLB_MAGIC: Final = b"glTF"
_GLB_HEAD: Final = 12
_IN_MEMORY: Final = 16 * 1024**2
_PIECE: Final = 256 * 1024
#: Entries carry no time of their own, so that the same results give the same bytes.
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)


class BadAsset(ValueError):  # noqa: N818
    """The bytes are not what the model's results are; the message says why."""


def check_asset(path: Path, model: Model, limits: Limits) -> None:
    """Decode the file as clients will. Raises BadAsset."""
    content = path.read_bytes()
    if model.splat:
        try:
            decode_spz(content, limits)
        except SplatError as error:
            raise BadAsset(str(error)) from error
    elif content[:4] != _GLB_MAGIC or int.from_bytes(content[8:_GLB_HEAD], "little") != len(content):
        raise BadAsset("not a whole GLB file")


def to_ply(spz: bytes, limits: Limits) -> bytes:
    """Binary PLY without normals. Raises BadAsset."""
    try:
        return write_ply(decode_spz(spz, limits), normals=False)
    except SplatError as error:
        raise BadAsset(str(error)) from error


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
