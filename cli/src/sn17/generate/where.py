"""Which gateway, and with which key: options, environment, a run on this machine, or a release."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sn17_contract.files import WrongShapeError
from sn17_contract.gateway import GATEWAY_PORT
from sn17_contract.ready import ReadyFile

from sn17.cluster.access import Access
from sn17.cluster.release import Release
from sn17.given import address_of, secret_of
from sn17.up.gateway import KEY_FILE

GATEWAY: Final = "gateway"
"""Name of its process in a run, and component of its pod in a release."""


class NoGatewayError(Exception):
    """There is no gateway to ask, or no key for it; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the options say; None is not given."""

    url: str | None
    key: str | None
    key_file: Path | None
    state_dir: Path | None
    release: str | None
    access: Access


@dataclass(frozen=True, slots=True)
class Found:
    """``name`` is the same in every run that means this gateway; ``url`` may be of a port-forward."""

    name: str
    url: str
    key: str


def find(source: Source, stack: ExitStack, runs: Path) -> Found:
    """The gateway; a port-forward lives as long as ``stack``.

    Raises:
        NoGatewayError: none, or no key.
        ClusterError: the release cannot be reached.
    """
    if source.url and source.release:
        raise NoGatewayError("give --url or --release, not both")
    key = _key(source)
    if source.release:
        if key is None:
            raise NoGatewayError(_NEEDS_KEY)
        release = Release(source.release, source.access)
        name = f"release {release.namespace}/{source.release}"
        return Found(name, stack.enter_context(release.forward(release.pods(GATEWAY)[0], GATEWAY_PORT)), key)
    if source.url:
        if key is None:
            raise NoGatewayError(_NEEDS_KEY)
        url = address_of(source.url)
        return Found(url, url, key)
    return _of_run(source.state_dir or _newest(runs), key)


_NEEDS_KEY: Final = (
    "the gateway wants a key: give --key-file or set SN17_GATEWAY_KEY (`sn17 gateway key create` makes one)"
)


def _of_run(folder: Path | None, key: str | None) -> Found:
    if folder is None:
        raise NoGatewayError("no gateway: start one with `sn17 up`, or give --url or --release")
    ready = folder / "run" / f"{GATEWAY}.json"
    try:
        port = ReadyFile.parse(ready.read_bytes(), ready).port
    except (FileNotFoundError, NotADirectoryError):
        raise NoGatewayError(f"the run in {folder} has no gateway: give --url or --release") from None
    except (OSError, WrongShapeError) as error:
        raise NoGatewayError(f"{ready}: {getattr(error, 'strerror', None) or error}") from error
    if key is None:
        key = secret_of(folder / KEY_FILE)
    url = f"http://127.0.0.1:{port}"
    return Found(url, url, key)


def _newest(runs: Path) -> Path | None:
    """The run that was started last and has a gateway; the names of folders sort by time."""
    found = sorted(path.parent.parent for path in runs.glob(f"*/run/{GATEWAY}.json"))
    return found[-1] if found else None


def _key(source: Source) -> str | None:
    if source.key and source.key_file:
        raise NoGatewayError("give --key or --key-file, not both")
    return source.key or (None if source.key_file is None else secret_of(source.key_file))
