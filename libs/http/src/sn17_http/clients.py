"""Clients on httpx2. Two kinds: for our own services, and for an address that a user gives."""

from __future__ import annotations

import ipaddress
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import httpx2


class ProxyUnusableError(ValueError):
    """The environment names a proxy that no client can be made for."""


def own_client(**options: Any) -> httpx2.Client:
    """For our own services: nothing of the environment counts. ``options`` are those of ``httpx2.Client``."""
    return httpx2.Client(trust_env=False, **options)


def own_async_client(**options: Any) -> httpx2.AsyncClient:
    """As :func:`own_client`, asynchronous."""
    return httpx2.AsyncClient(trust_env=False, **options)


def own_request(method: str, url: str, **options: Any) -> httpx2.Response:
    """One request to one of our own services, over a connection of its own.

    Raises:
        httpx2.HTTPError: there was no answer.
    """
    return httpx2.request(method, url, trust_env=False, **options)


def client_for(url: str, **options: Any) -> httpx2.Client:
    """For the address that a user gave: through the environment's proxy unless it is near.

    Raises:
        ProxyUnusableError: the proxy's kind is not supported.
    """
    options |= _environment(url, options)
    try:
        return httpx2.Client(base_url=url, **options)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise _unusable(url, error) from error


def async_client_for(url: str, **options: Any) -> httpx2.AsyncClient:
    """As :func:`client_for`, asynchronous."""
    options |= _environment(url, options)
    try:
        return httpx2.AsyncClient(base_url=url, **options)
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise _unusable(url, error) from error


def goes_through_a_proxy(url: str) -> bool:
    """Whether the environment's proxy is asked for ``url``.

    Never for this machine and for names that only a cluster resolves (no dot, ``.svc``,
    ``.cluster.local``), and not for what ``NO_PROXY`` names.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    if not (proxies.get(parts.scheme) or proxies.get("all")):
        return False
    return not _is_near(host) and not urllib.request.proxy_bypass(host)


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".")
        return "." not in name or name.endswith((".localhost", ".svc", ".svc.cluster.local"))
    return address.is_loopback or address.is_unspecified


def _environment(url: str, options: dict[str, Any]) -> dict[str, Any]:
    if goes_through_a_proxy(url):
        return {"trust_env": True}
    # Certificates named by SSL_CERT_FILE count all the same.
    if url.startswith("https:") and options.get("verify", True) is True:
        return {"trust_env": False, "verify": httpx2.create_ssl_context()}
    return {"trust_env": False}


def _unusable(url: str, error: Exception) -> ProxyUnusableError:
    reason = "SOCKS is not supported" if isinstance(error, ImportError) else str(error)
    return ProxyUnusableError(
        f"no client for {url} with the proxy that the environment names ({reason}): "
        "name an HTTP proxy, or put the host into NO_PROXY"
    )
