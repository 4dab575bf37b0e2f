"""A Prometheus that is not open to all: TLS with an authority of one's own, user and password, bearer."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Fleet
from sn17_chaos.waiting import free_port, wait_for
from sn17_cluster.client import Cluster
from sn17_cluster.pki import Authority
from sn17_http import own_request
from sn17_operator.adapters.local import default_spec
from sn17_operator.adapters.prometheus import PrometheusMetrics, PrometheusSettings, QueryError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

PASSWORD = "secret"
BCRYPT = "$2b$04$Ujtlr7jpHd0Sn4QTKJfUH.0wFpp71jEyHpwu93Y6GsLyxNk635AnG"
"""Of the password, at the least cost there is."""


@dataclass(frozen=True)
class Secured:
    """A server with TLS, and the folder of what is needed to be let in."""

    url: str
    folder: Path

    def settings(self, **changes: Any) -> PrometheusSettings:
        return PrometheusSettings(**{"url": self.url, "timeout_seconds": 5, **changes})

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def secured(
    api: Cluster, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """A real Prometheus behind TLS and basic authentication."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    pair = authority.issue("prometheus", hosts=["127.0.0.1"])
    web = {
        "tls_server_config": {"cert_file": str(pair.certificate), "key_file": str(pair.key)},
        "basic_auth_users": {"operator": BCRYPT},
    }
    (folder / "web.yml").write_text(yaml.safe_dump(web))
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": []}))
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [
                api.tools["prometheus"],
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--web.config.file={folder}/web.yml",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
        )
    found = Secured(f"https://127.0.0.1:{port}", folder)
    trust = ssl.create_default_context(cafile=str(authority.certificate))

    def answers() -> bool:
        try:
            return own_request(
                "GET", f"{found.url}/-/ready", verify=trust, auth=("operator", PASSWORD)
            ).is_success
        except httpx2.HTTPError:
            return False

    try:
        wait_for("Prometheus", answers, 60)
        yield found
    finally:
        process.kill()
        process.wait()


async def asked(settings: PrometheusSettings) -> str:
    """The reason for which there is no answer; empty when there is one."""
    metrics = PrometheusMetrics(settings)
    try:
        await metrics.query("vector(1)", time.time())
    except QueryError as error:
        return f"{error.reason}: {error}"
    finally:
        await metrics.close()
    return ""


async def test_authority_user_and_password_open_the_door(secured: Secured, authority: Authority) -> None:
    password = secured.file("password", PASSWORD + "\n")
    entry = {"username": "operator", "password_file": password}
    settings = secured.settings(ca_file=authority.certificate, **entry)
    assert await asked(settings) == ""
    metrics = PrometheusMetrics(settings)
    found = await metrics.measure(time.time(), [default_spec().rules])
    await metrics.close()
    assert found.monitoring.failed == {}


async def test_what_is_wrong_is_said(secured: Secured, authority: Authority, tmp_path: Path) -> None:
    right = {"ca_file": authority.certificate, "username": "operator"}
    wrong = secured.file("wrong", "guess")
    other = Authority(tmp_path / "other").certificate
    cases = [
        ({**right, "ca_file": other}, "certificate: the certificate of https://127.0.0.1"),
        ({"username": "operator"}, "certificate: "),
        ({**right, "password_file": wrong}, "http_401: Unauthorized: check bearer token, user name"),
        ({"ca_file": authority.certificate}, "http_401: Unauthorized"),
        ({**right, "password_file": tmp_path / "none"}, f"credentials: {tmp_path}/none cannot be read"),
        ({"url": secured.url.replace("https", "http")}, "http_400: Client sent an HTTP request to an HTTPS"),
    ]
    for changes, expected in cases:
        told = await asked(secured.settings(**changes))
        assert told.startswith(expected)
        assert PASSWORD not in told


def test_authority_that_cannot_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    for name, content in (("none", None), ("empty", "no certificate")):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name}: no certificate authority can be read"):
            PrometheusMetrics(PrometheusSettings(ca_file=tmp_path / name))


@pytest.fixture
def gateway(authority: Authority, tmp_path: Path) -> Iterator[Secured]:
    """TLS and a bearer token, as a gateway in front of Prometheus asks for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            let_in = self.headers.get("authorization") == f"Bearer {PASSWORD}"
            self.send_response(200 if let_in else 403)
            self.end_headers()
            if let_in:
                self.wfile.write(b'{"status":"success","data":{"resultType":"matrix","result":[]}}')

        def log_message(self, *args: object) -> None:
            pass

    pair = authority.issue("gateway", hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield Secured(f"https://127.0.0.1:{server.server_port}", tmp_path)
    server.shutdown()
    server.server_close()


async def test_bearer_token_is_read_anew_for_each_query(gateway: Secured, authority: Authority) -> None:
    token = gateway.file("token", "old")
    metrics = PrometheusMetrics(gateway.settings(ca_file=authority.certificate, bearer_token_file=token))
    try:
        with pytest.raises(QueryError, match="check bearer token"):
            await metrics.query("up", time.time())
        token.write_text(PASSWORD)
        assert await metrics.query("up", time.time()) == []
    finally:
        await metrics.close()


def test_condition_says_why_prometheus_cannot_be_asked(
    fleet: Fleet, secured: Secured, authority: Authority, tmp_path: Path
) -> None:
    fleet.deploy(1)
    fleet.miner()
    other = Authority(tmp_path / "other").certificate
    password = secured.file("password", PASSWORD)
    access = {
        "SN17_PROMETHEUS__URL": secured.url,
        "SN17_PROMETHEUS__USERNAME": "operator",
        "SN17_PROMETHEUS__PASSWORD_FILE": str(password),
    }
    with running(OperatorProcess(fleet, tmp_path, SN17_PROMETHEUS__CA_FILE=str(other), **access)) as operator:
        fleet.wait_status("MetricsUnavailable", 60)
        condition = fleet.condition("MetricsAvailable")
        assert (condition["status"], condition["reason"]) == ("False", "QueryFailed")
        assert f"the certificate of {secured.url} is not trusted, check the CA file" in condition["message"]
        assert PASSWORD not in operator.log.read_text()
    trusted = OperatorProcess(fleet, tmp_path, SN17_PROMETHEUS__CA_FILE=str(authority.certificate), **access)
    with running(trusted):
        # Nobody scrapes the worker there, but the Prometheus answers.
        wait_for("an answer", lambda: fleet.condition("MetricsAvailable")["reason"] != "QueryFailed", 60)
