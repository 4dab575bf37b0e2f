"""Headers of every answer to a browser, and who may read without a key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

#: No other host, no inline script or style, no frame. The viewer's decoder is WebAssembly in a worker
#: that it makes from a blob; pictures of assets are blobs too.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Whether an address or name, without a port, is this machine's loopback."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(authority: str) -> str:
    """The host of a Host header, without its port; empty where it is malformed."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def open_to_all(listens_on: str, host_header: str, forwarded: bool) -> bool:
    """Whether a request needs no key: this process listens on the loopback alone, and the browser asked for
    the loopback by that name. A foreign name that resolves to the loopback (DNS rebinding) and a proxy in
    front need a key.
    """
    return is_loopback(listens_on) and is_loopback(host_name(host_header)) and not forwarded
