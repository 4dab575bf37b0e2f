"""A gateway as the settings name it, its offers, and the addresses of its nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sn17_contract.gateway import DEFAULT_MODEL, GatewayInfo, TaskOffer
from sn17_contract.tasks import TaskKind

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MOST_PORTS: Final = 65535
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Source:
    """``door`` is its name everywhere, ``url`` where its nodes are asked for; ``life`` and ``pause`` seconds.

    ``worker_id`` is told to every client whose task this miner does, so it names no host.
    """

    door: str
    url: str
    weight: float
    worker_id: str
    life: float
    """Of a task, from the moment that its client asked: the pull comes later."""
    pause: float
    """Between two calls to a node without tasks."""
    follow_nodes: bool


@dataclass(frozen=True, slots=True)
class Offered:
    """One task, checked. ``prompt`` is the text, or the picture as base64."""

    task_id: str
    kind: TaskKind
    prompt: str
    model: str
    seed: int
    token: str


class BadOfferError(ValueError):
    """No task that this miner can do; the message says why."""


def read_offer(offer: TaskOffer) -> Offered:
    """Raises BadOfferError for another model, or neither or both of prompt and picture."""
    if offer.model != DEFAULT_MODEL:
        raise BadOfferError(f"it is for the model {offer.model[:64]!r}, which was not asked for")
    if not _ID.fullmatch(offer.id) or not _ID.fullmatch(offer.assignment_token):
        raise BadOfferError("its id or its token is no UUID")
    if bool(offer.prompt) == bool(offer.image):
        raise BadOfferError("it has neither or both of prompt and image")
    kind = TaskKind.TEXT if offer.prompt else TaskKind.IMAGE
    text = offer.prompt or offer.image or ""
    return Offered(offer.id, kind, text, offer.model, offer.seed, offer.assignment_token)


def worker_seed(seed: int) -> int:
    """A gateway's signed 32 bits as the number from 0 to 2^32 - 1 that workers take."""
    return seed & 0xFFFFFFFF


def node_urls(source: Source, listed: Iterable[GatewayInfo]) -> list[str]:
    """Base URLs of the nodes to ask. A gateway that lists one node is asked at its own address: what it calls
    itself need not be reachable from here. Malformed addresses are left out.
    """
    nodes = list(listed)
    if not source.follow_nodes or len(nodes) < 2:
        return [source.url]
    scheme = source.url.partition("://")[0]
    urls = [
        f"{scheme}://{node.domain}:{node.http_port}"
        for node in nodes
        if _HOST.fullmatch(node.domain) and 0 < node.http_port <= _MOST_PORTS
    ]
    return urls or [source.url]
