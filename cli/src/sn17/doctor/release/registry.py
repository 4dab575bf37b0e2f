"""Asks a registry for an image's manifest, by the OCI distribution protocol, as a node would."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx2
from sn17_http import client_for

from sn17.doctor.release.images import Answer, Image

SECONDS: Final = 10.0
ACCEPT: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
DOCKER_HUB: Final = "registry-1.docker.io"
UNPUBLISHED: Final = "sn17/"
"""Repositories of ours without a registry before them: nobody publishes them."""
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Registry(Protocol):
    """Answers for one reference; ``logins`` are user and password by registry, as pull secrets hold them."""

    def ask(self, reference: str, logins: Mapping[str, tuple[str, str]]) -> Image: ...


@dataclass(frozen=True, slots=True)
class Reference:
    """``quay.io/prometheus/prometheus:v3`` in its parts; ``tag`` may be a digest."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """As docker reads it: without a host that is one, it is an image of Docker Hub."""
        name, at, digest = text.partition("@")
        head, slash, rest = name.partition("/")
        if not slash or not ("." in head or ":" in head or head == "localhost"):
            head, rest = "docker.io", name if slash else f"library/{name}"
        repository, colon, tag = rest.partition(":")
        host = DOCKER_HUB if head == "docker.io" else head
        return cls(host, repository, digest if at else tag if colon else "latest")

    @property
    def url(self) -> str:
        """Registries on this machine speak plain HTTP, as docker has it."""
        near = self.host.partition(":")[0] in ("localhost", "127.0.0.1")
        return f"{'http' if near else 'https'}://{self.host}"


class HttpRegistry:
    """The real ones."""

    def ask(self, reference: str, logins: Mapping[str, tuple[str, str]]) -> Image:
        if reference.startswith(UNPUBLISHED):
            return Image(reference, Answer.PRELOADED)
        parsed = Reference.parse(reference)
        path = f"/v2/{parsed.repository}/manifests/{parsed.tag}"
        login = logins.get(parsed.host) or logins.get(reference.partition("/")[0])
        try:
            with client_for(parsed.url, timeout=SECONDS, follow_redirects=True) as client:
                answer = client.head(path, headers={"accept": ACCEPT})
                if answer.status_code == 401:
                    header = _authorization(answer.headers.get("www-authenticate", ""), login)
                    if header:
                        answer = client.head(path, headers={"accept": ACCEPT, "authorization": header})
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            return Image(reference, Answer.SILENT, f"{parsed.host} does not answer from here: {error}")
        return Image(reference, *_meaning(answer.status_code, parsed.host))


def _meaning(status: int, host: str) -> tuple[Answer, str]:
    if 200 <= status < 300:
        return Answer.THERE, ""
    if status == 404:
        return Answer.ABSENT, ""
    if status in (401, 403):
        return Answer.REFUSED, ""
    return Answer.SILENT, f"{host} answers {status}"


def _authorization(challenge: str, login: tuple[str, str] | None) -> str:
    """What to answer to a 401; empty where there is nothing to answer."""
    kind, _, rest = challenge.partition(" ")
    basic = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else ""
    if kind.lower() != "bearer":
        return basic
    fields = dict(_CHALLENGE.findall(rest))
    realm = fields.pop("realm", "")
    if not realm:
        return ""
    with client_for(realm, timeout=SECONDS) as client:
        answer = client.get(realm, params=fields, headers={"authorization": basic} if basic else {})
    if not answer.is_success:
        return ""
    found = answer.json()
    token = found.get("token") or found.get("access_token") if isinstance(found, dict) else None
    return f"Bearer {token}" if token else ""


def logins_of(docker_config: bytes) -> dict[str, tuple[str, str]]:
    """User and password by registry of a ``.dockerconfigjson``; what is not of that form is left out."""
    try:
        auths: Any = json.loads(docker_config)["auths"]
        return {
            host.removeprefix("https://").removesuffix("/v1/").rstrip("/"): _login(entry)
            for host, entry in auths.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _login(entry: Mapping[str, str]) -> tuple[str, str]:
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return user, password
    return entry["username"], entry["password"]
