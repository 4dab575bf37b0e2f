"""Headers and client certificates of a Prometheus that is not open to all."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sn17_cluster.pki import Authority
from sn17_operator.adapters.prometheus import PrometheusMetrics, PrometheusSettings, QueryError
from sn17_operator.settings import OperatorSettings

ANSWER = b'{"status": "success", "data": {"resultType": "vector", "result": []}}'


class Mimir(BaseHTTPRequestHandler):
    """Answers tenants only."""

    def do_GET(self) -> None:
        known = self.headers.get("X-Scope-OrgID") == "team-secret"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(ANSWER if known else b"no org id")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def url(authority: Authority) -> Iterator[str]:
    """A server that asks for a client certificate and a tenant."""
    pair = authority.issue("mimir", hosts=["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)
    server = HTTPServer(("127.0.0.1", 0), Mimir)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def asked(settings: PrometheusSettings) -> str:
    metrics = PrometheusMetrics(settings)
    try:
        await metrics.query("vector(1)", 1.0)
    except QueryError as error:
        return error.reason
    finally:
        await metrics.close()
    return ""


async def test_tenant_and_client_certificate_open_the_door(url: str, authority: Authority) -> None:
    pair = authority.issue("operator")
    common = {"url": url, "ca_file": authority.certificate}
    certificate = {"client_cert_file": pair.certificate, "client_key_file": pair.key}
    tenant = {"headers": {"X-Scope-OrgID": "team-secret"}}
    assert await asked(PrometheusSettings.model_validate(common | certificate | tenant)) == ""
    assert await asked(PrometheusSettings.model_validate(common | certificate)) == "http_401"
    assert await asked(PrometheusSettings.model_validate(common | tenant)) in ("certificate", "unreachable")


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tls.crt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match="no client certificate"):
        PrometheusMetrics(PrometheusSettings(url="https://127.0.0.1:9", client_cert_file=file))


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="client_key_file needs client_cert_file"):
        PrometheusSettings(client_key_file=tmp_path / "tls.key")


def test_headers_come_from_the_environment_and_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SN17_PROMETHEUS__HEADERS", '{"X-Scope-OrgID": "team-secret"}')
    settings = OperatorSettings()
    assert settings.prometheus.headers["X-Scope-OrgID"].get_secret_value() == "team-secret"
    assert "team-secret" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("name", ["", "a b", "a:b", "Authorization", "HOST", "a\r\nb"])
def test_a_header_that_cannot_be_sent_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        PrometheusSettings.model_validate({"headers": {name: "x"}})


@given(st.text())
def test_values_of_headers_are_one_line_or_refused(value: str) -> None:
    if value and value.isascii() and value.isprintable() and value == value.strip():
        PrometheusSettings.model_validate({"headers": {"X-Scope-OrgID": value}})
    else:
        with pytest.raises(ValidationError):
            PrometheusSettings.model_validate({"headers": {"X-Scope-OrgID": value}})


def test_a_refused_value_is_not_in_the_error() -> None:
    with pytest.raises(ValidationError) as caught:
        PrometheusSettings.model_validate({"headers": {"X-Scope-OrgID": "team-secret\n"}})
    assert "team-secret" not in str(caught.value)
