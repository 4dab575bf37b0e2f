"""What only the view of the whole fleet shows: a worker whose canary comes out unlike that of its peers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

LEAST_PEERS: Final = 3
"""Of two that differ nobody knows which is right."""


def disagreeing(canaries: Mapping[str, str]) -> dict[str, str]:
    """Why a worker's canary differs from what most of its peers make, by worker.

    ``canaries``: checkpoint and output as digests, by worker. Peers run the same checkpoint on the same kind
    of device, which the first part stands for; at least three, and more than half of them of one mind.
    """
    groups: dict[str, dict[str, str]] = {}
    for uid, canary in canaries.items():
        model, _, output = canary.partition("/")
        groups.setdefault(model, {})[uid] = output
    found: dict[str, str] = {}
    for group in groups.values():
        common, agreed = Counter(group.values()).most_common(1)[0]
        if len(group) < LEAST_PEERS or 2 * agreed <= len(group):
            continue
        for uid, output in group.items():
            if output != common:
                found[uid] = f"its canary is unlike that of {agreed} of {len(group)} workers of its kind"
    return found
