"""The API server without a process per call: for tests that look often, or at much."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml
from sn17_http import own_client

MERGE_PATCH = "application/merge-patch+json"


class ApiClient:
    """Access with the credentials of a kubeconfig whose user has a client certificate.

    context: trusts the server and shows nobody's certificate, for access as somebody else.
    """

    def __init__(self, kubeconfig: Path, *, timeout: float = 30.0) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=authority)
        context = ssl.create_default_context(cadata=authority)
        # The standard library loads a client's certificate from files only.
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.touch(mode=0o600)
            parts = (user["client-certificate-data"], user["client-key-data"])
            pair.write_bytes(b"\n".join(base64.b64decode(part) for part in parts))
            context.load_cert_chain(pair)
        self.http = own_client(base_url=self.server, verify=context, timeout=timeout)

    def get(self, path: str, **params: str) -> Any:
        """Parsed JSON. Raises httpx2.HTTPError."""
        return self.http.get(path, params=params).raise_for_status().json()

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Merge. Raises httpx2.HTTPError."""
        headers = {"content-type": MERGE_PATCH}
        return self.http.patch(path, content=json.dumps(body), headers=headers).raise_for_status().json()

    def delete(self, path: str, **params: str) -> None:
        """Raises httpx2.HTTPError, but not when it is gone already."""
        answer = self.http.delete(path, params=params)
        if answer.status_code != httpx2.codes.NOT_FOUND:
            answer.raise_for_status()

    def close(self) -> None:
        self.http.close()
