"""Tags tie tasks of some keys to some workers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_TAG: Final = re.compile(r"[a-z0-9_-]{1,32}")


class BadTag(ValueError):  # noqa: N818
    """A tag has other letters or another length than allowed."""


def clean_tags(tags: Iterable[str]) -> frozenset[str]:
    """Trimmed and in lower case. Raises BadTag."""
    cleaned = frozenset(tag.strip().lower() for tag in tags)
    if not all(_TAG.fullmatch(tag) for tag in cleaned):
        raise BadTag("a tag has 1 to 32 letters a-z, digits, _ or -")
    return cleaned
