"""Ids as clients send them."""

from __future__ import annotations

import re
import uuid
from typing import Final

from sn17_gateway.http.errors import bad_request

_UUID: Final = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def parse_uuid(text: str, name: str) -> str:
    """The usual spelling of a UUID. Raises Refusal."""
    if not _UUID.fullmatch(text):
        raise bad_request(f"deserialize error: {name} must be a UUID")
    return str(uuid.UUID(text))
