"""Results as files of splats or meshes: checked when they come, turned into what a client asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sn17_contract.gateway import Model
from sn17_splats import Limits, SplatError, decode_spz, write_ply

_GLB_MAGIC: Final = b"glTF"
_GLB_HEAD: Final = 12


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
