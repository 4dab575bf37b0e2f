"""Where every HTTP client is made: our own services and this machine are never asked through a proxy."""

from sn17_http.clients import (
    ProxyUnusableError,
    async_client_for,
    client_for,
    goes_through_a_proxy,
    own_async_client,
    own_client,
    own_request,
)

__all__ = [
    "ProxyUnusableError",
    "async_client_for",
    "client_for",
    "goes_through_a_proxy",
    "own_async_client",
    "own_client",
    "own_request",
]
