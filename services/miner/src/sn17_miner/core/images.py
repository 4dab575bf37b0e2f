"""The bytes of an image task, whatever dialect of base64 its validator speaks."""

from __future__ import annotations

import base64
import re
from typing import Final

_DATA_URI: Final = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s+")
_URL_SAFE: Final = str.maketrans("-_", "+/")


def image_bytes(prompt: str) -> bytes:
    """Decode the prompt of an image task.

    Validators send plain base64. A ``data:`` URI, line breaks, the URL-safe alphabet and missing padding are
    taken as well: they leave no doubt about the bytes.

    Raises:
        ValueError: the prompt is empty or no base64; the message says what is wrong.
    """
    if prefix := _DATA_URI.match(prompt):
        if ";base64" not in prefix[0].lower():
            raise ValueError("the prompt is a data URI without base64")
        prompt = prompt[prefix.end() :]
    text = _SPACE.sub("", prompt).translate(_URL_SAFE).rstrip("=")
    if not text:
        raise ValueError("the prompt is empty")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError(f"the prompt is no base64: {error}") from error
