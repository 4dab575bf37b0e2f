"""Which requests pass through the proxy that the environment names: real sockets on both ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from sn17_http import (
    ProxyUnusableError,
    async_client_for,
    client_for,
    goes_through_a_proxy,
    own_async_client,
    own_client,
    own_request,
)

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Server:
    """Answers every GET with its own name and keeps the request lines."""

    def __init__(self, name: str) -> None:
        self.seen: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Server]:
    server = Server("service")
    yield server
    server.close()


@pytest.fixture
def proxy() -> Iterator[Server]:
    server = Server("proxy")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("kind", ["http", "socks5", "nonsense"])
async def test_our_own_services_are_asked_directly(
    service: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    monkeypatch.setenv(variable, proxy.url.replace("http", kind, 1))
    with own_client() as client:
        assert client.get(service.url).text == "service"
    async with own_async_client() as client_async:
        assert (await client_async.get(service.url)).text == "service"
    assert own_request("GET", service.url).text == "service"
    with client_for(service.url) as client:
        assert client.get("/").text == "service"
    async with async_client_for(service.url) as client_async:
        assert (await client_async.get("/")).text == "service"
    assert proxy.seen == []


def test_the_world_outside_is_asked_through_the_proxy(proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with client_for("http://prometheus.example/") as client:
        assert client.get("api/v1/query").text == "proxy"
    assert proxy.seen == ["http://prometheus.example/api/v1/query"]


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("http://prometheus.example", True),
        ("https://10.1.2.3:9090", True),
        ("http://127.0.0.1:9090", False),
        ("http://127.8.9.10", False),
        ("http://localhost:9090", False),
        ("http://LOCALHOST", False),
        ("http://a.localhost.", False),
        ("http://[::1]:9090", False),
        ("http://0.0.0.0:9090", False),
        ("http://prometheus:9090", False),
        ("http://prometheus.monitoring.svc:9090", False),
        ("https://prometheus.monitoring.svc.cluster.local", False),
        ("http://svc.example.com", True),
        ("http://inside.example.org", False),
    ],
)
def test_what_is_near_is_not_proxied(url: str, through: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not goes_through_a_proxy(url)
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example.org")
    assert goes_through_a_proxy(url) is through


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "gopher://x", "http://host:port"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ProxyUnusableError, match="NO_PROXY") as told:
        client_for("http://prometheus.example")
    with pytest.raises(ProxyUnusableError, match="NO_PROXY"):
        async_client_for("http://prometheus.example")
    assert "\n" not in str(told.value)
    monkeypatch.setenv("NO_PROXY", "prometheus.example")
    client_for("http://prometheus.example").close()


def test_a_service_that_is_gone_is_an_error_of_httpx2(service: Server) -> None:
    service.close()
    with pytest.raises(httpx2.ConnectError):
        own_request("GET", service.url)
