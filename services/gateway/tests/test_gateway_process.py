"""The gateway as an operator runs it: settings, TLS, a restart, a clean end."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gateway_client import Client, FleetWorker, splat_bytes
from gateway_process import DEADLINE, GUEST, GatewayProcess
from sn17_gateway.settings import GatewaySettings
from sn17_http import own_request
from sn17_service.settings import ServiceSettings, describe_settings

DOCS = Path(__file__).resolve().parents[3] / "docs" / "gateway.md"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(17)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "tls.crt", folder / "tls.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


def test_tls_by_files(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    with GatewayProcess(tmp_path, tls_cert_file=chain, tls_key_file=key) as gateway:
        url = f"https://127.0.0.1:{gateway.ports['port']}/id"
        trusting = ssl.create_default_context(cafile=str(chain))
        assert own_request("GET", url, verify=trusting).text == "1"
        with pytest.raises(httpx2.ConnectError):
            own_request("GET", url)
        old = ssl.create_default_context(cafile=str(chain))
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.raises(httpx2.ConnectError):
            own_request("GET", url, verify=old)
        with pytest.raises(httpx2.TransportError):
            own_request("GET", url.replace("https", "http"))


def test_a_restart_keeps_queue_deliveries_results_and_keys(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path) as gateway:
        client, worker = Client(gateway.url, GUEST), FleetWorker(gateway.url)
        done = client.task()
        (offer,) = worker.pull()
        worker.deliver(offer, splat_bytes(1))
        held = client.task("a blue robot")
        (open_offer,) = worker.pull()
        waiting = client.task("a green robot")
        headers = {"authorization": "Bearer correct horse"}
        made = own_request("POST", f"{gateway.ops_url}/admin/v1/keys", json={"name": "mine"}, headers=headers)
        assert gateway.stop() == 0
        gateway.start()
        client, worker = Client(gateway.url, GUEST), FleetWorker(gateway.url)
        assert client.result(done).content == splat_bytes(1)
        assert worker.deliver(open_offer, splat_bytes(2)).status_code == 200
        assert client.result(held).content == splat_bytes(2)
        assert [offer["id"] for offer in worker.pull()] == [waiting]
        assert Client(gateway.url, made.json()["key"]).add().status_code == 200


def ends(**settings: str) -> tuple[int, str]:
    """Exit code and standard error of a gateway that does not start."""
    environment = {**os.environ, **{f"SN17_{name.upper()}": value for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "sn17_gateway"], env=environment, capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("settings", "code", "named"),
    [
        ({"generic_key": "abc"}, 2, "SN17_GENERIC_KEY"),
        ({"generic_key_file": "/nowhere"}, 2, "SN17_GENERIC_KEY_FILE"),
        ({"generic_key_file": "/dev/null"}, 2, "UUID"),
        ({"models": '["404-3dgs","nonsense"]'}, 2, "SN17_MODELS"),
        ({"worker_hotkeys": '["5abc"]'}, 2, "SN17_WORKER_HOTKEYS"),
        ({"trusted_proxies": '["nowhere"]'}, 2, "SN17_TRUSTED_PROXIES"),
        ({"tls_cert_file": "/nowhere"}, 2, "SN17_TLS_CERT_FILE"),
        ({"database": "postgres"}, 2, "SN17_DATABASE_URL_FILE"),
        ({"tls_cert_file": "/nowhere", "tls_key_file": "/nowhere"}, 1, "/nowhere"),
        ({"database": "postgres", "database_url_file": "/nowhere"}, 1, "/nowhere"),
        ({"data_dir": "/proc/nowhere"}, 1, "/proc/nowhere"),
        ({"key_secret_file": "/dev/null"}, 1, "/dev/null"),
    ],
)
def test_a_mistake_in_the_settings_is_named_in_one_line(
    tmp_path: Path, settings: dict[str, str], code: int, named: str
) -> None:
    found, text = ends(**{"data_dir": str(tmp_path), "port": "0", "ops_port": "0", **settings})
    assert (found, named in text) == (code, True), text
    assert "hunter2" not in text


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("postgresql://sn17:hunter2@127.0.0.1:1/x")
    code, text = ends(
        data_dir=str(tmp_path), port="0", ops_port="0", database="postgres", database_url_file=str(url),
        database_timeout_seconds="2",
    )  # fmt: skip
    assert (code, "Postgres" in text, "hunter2" in text) == (1, True, False), text


def test_the_page_lists_every_setting_with_its_default() -> None:
    own = set(GatewaySettings.model_fields) - (set(ServiceSettings.model_fields) - {"port"})
    rows = dict(re.findall(r"^\| `SN17_(\w+)` \| ([^|]*) \|", DOCS.read_text(), re.MULTILINE))
    assert {name.lower() for name in rows} == own
    shown = {
        line.split()[0].removeprefix("SN17_"): line.split(None, 2)[1]
        for line in describe_settings(GatewaySettings).splitlines()
    }
    for name, default in rows.items():
        if default.strip() != "none":
            assert default.strip().strip("`").replace(" ", "") == shown[name], name
