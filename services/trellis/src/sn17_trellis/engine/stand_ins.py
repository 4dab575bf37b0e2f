"""Files that lie where weights were meant, named by how they begin."""

from __future__ import annotations

from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 512
_STARTS: Final = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself, with `git lfs pull`"),
    (b"PK\3\4", "a zip archive, as torch.save writes it: safetensors are read, nothing pickled"),
    (b"\x80\x02", "a Python pickle: safetensors are read, nothing pickled"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"<", "a web page or XML: what a server said in place of the file"),
    (b"{", "JSON text: what a server said in place of the file"),
)


def what_it_is(path: Path) -> str | None:
    """What else stands there and what to do about it; None where nothing is known. Never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    if not head:
        return "empty"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((said for begin, said in _STARTS if start.startswith(begin)), None)
