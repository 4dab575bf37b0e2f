"""Who a worker of a gateway is: its hotkey's signature over a recent time."""

from __future__ import annotations

import base64
import binascii
import re
from enum import StrEnum
from typing import Final

from bittensor_wallet import Keypair

PREFIX: Final = "404_GATEWAY_"
FRESH_SECONDS: Final = 30
_TIMESTAMP: Final = re.compile(re.escape(PREFIX) + r"([0-9]{1,18})")
_SIGNATURE_BYTES: Final = 64
_MAX_ADDRESS: Final = 64


def sign_time(keypair: Keypair, now: float) -> tuple[str, str]:
    """Signature (base64) and timestamp for both routes of workers.

    The time lies a second back: a gateway refuses one that is in the future by its own clock.
    """
    timestamp = f"{PREFIX}{int(now) - 1}"
    return base64.b64encode(keypair.sign(timestamp)).decode(), timestamp


class BadSignature(StrEnum):
    """What is wrong, in words for the worker."""

    STALE = "the timestamp is in the future or older than 30 seconds; sign with a clock a second slow"
    ENCODING = "the signature is not base64 of 64 bytes"
    WRONG = "the signature is not this hotkey's over the timestamp"


def valid_hotkey(text: str) -> bool:
    """Whether ``text`` is an SS58 address of prefix 42 with a right checksum."""
    if len(text) > _MAX_ADDRESS:
        return False
    try:
        public = Keypair(ss58_address=text).public_key
    except ValueError:
        return False
    return public is not None and Keypair(public_key=public.hex(), ss58_format=42).ss58_address == text


def timestamp_seconds(text: str) -> int | None:
    """The unix seconds of ``404_GATEWAY_<seconds>``, or None."""
    found = _TIMESTAMP.fullmatch(text)
    return int(found[1]) if found else None


def check_signature(hotkey: str, signature: str, timestamp: str, now: float) -> BadSignature | None:
    """Whether ``hotkey`` has signed ``timestamp`` within the last 30 seconds; sr25519, standard base64.

    The signature covers the time alone, so within these seconds whoever has seen it can use it again.
    """
    seconds = timestamp_seconds(timestamp)
    if seconds is None or not 0 <= int(now) - seconds <= FRESH_SECONDS:
        return BadSignature.STALE
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return BadSignature.ENCODING
    if len(raw) != _SIGNATURE_BYTES:
        return BadSignature.ENCODING
    try:
        good = Keypair(ss58_address=hotkey).verify(timestamp, raw)
    except ValueError:
        good = False
    return None if good else BadSignature.WRONG
