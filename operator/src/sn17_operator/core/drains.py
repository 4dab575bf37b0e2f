"""Being drained by others: what to answer to a request that names the pods to be drained. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """One request; ``pods``: names by namespace. ``said``: the status and reason that it has already."""

    name: str
    node: str
    pods: Mapping[str, tuple[str, ...]]
    said: tuple[str, str, str] | None = None
    """Status, reason and message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Pods to evict now, and what to say."""

    evict: tuple[str, ...]
    done: bool
    reason: str
    message: str

    @property
    def said(self) -> tuple[str, str, str]:
        """As ``DrainRequest.said``."""
        return str(self.done), self.reason, self.message


def answer(request: DrainRequest, namespace: str, present: Mapping[str, bool]) -> Answer:
    """What to do about a request.

    Args:
        namespace: The one that this operator may act in; for pods of others it never speaks.
        present: Listed pods of it that still exist, by name, and whether they are ending already.
    """
    listed = request.pods.get(namespace, ())
    left = [name for name in listed if name in present]
    evict = tuple(name for name in left if not present[name])
    foreign = sorted(other for other, names in request.pods.items() if other != namespace and names)
    if left:
        names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        return Answer(evict, False, "WaitingForJobs", f"finish their jobs first: {names}")
    if foreign:
        text = f"pods of other namespaces are for others to drain: {', '.join(foreign[:5])}"
        return Answer((), False, "OtherNamespaces", text)
    return Answer((), True, "Drained", f"{len(listed)} pods have left {request.node or 'the node'}")
