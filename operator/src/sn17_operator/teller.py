"""What people are told: Events, and the status of an SN17Miner when it says something new."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from sn17_operator.core.model import Pod
from sn17_operator.ports import Announcement, Cluster, Miner, Refused
from sn17_operator.status.codec import flips, worth_writing
from sn17_operator.status.resource import Status

log = logging.getLogger("sn17.operator")


@dataclass(frozen=True, slots=True)
class _Written:
    """The last status of one SN17Miner; ``told`` is the last one whose flips were made Events."""

    status: Status
    at: float
    told: Status
    stored: bool


class Teller:
    """Writes through the cluster; a refusal is logged and never holds anything else up."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._written: dict[str, _Written] = {}

    def previous(self, miner: Miner) -> Status:
        """The newest status known: our own last write may not have come back through the watch yet."""
        written = self._written.get(miner.uid)
        return written.status if written is not None else miner.status

    def keep(self, miners: Iterable[Miner]) -> None:
        """Forget all others."""
        uids = {miner.uid for miner in miners}
        self._written = {uid: value for uid, value in self._written.items() if uid in uids}

    async def announce(self, miner: Miner, pod: Pod | None, announcement: Announcement) -> None:
        """Post an Event."""
        try:
            await self._cluster.announce(miner, pod, announcement)
        except Refused as error:
            log.warning("an Event could not be posted: %s", error)

    async def tell(self, miner: Miner, rendered: Status, previous: Status, now: float) -> None:
        """Write the status where it is worth it, and an Event for each condition that turned."""
        before = self._written.get(miner.uid)
        again = before is not None and not before.stored
        since = float("inf") if before is None else now - before.at
        if not again and not worth_writing(rendered, previous, since):
            return
        told = miner.status if before is None else before.told
        try:
            await self._cluster.write_status(miner, rendered)
        except Refused as error:
            log.warning("%s/%s: %s", miner.namespace, miner.name, error)
            # Its totals must not be lost: the next tick goes on from here and writes it.
            self._written[miner.uid] = _Written(rendered, now, told, stored=False)
            return
        self._written[miner.uid] = _Written(rendered, now, rendered, stored=True)
        for flip in flips(rendered, told):
            await self.announce(miner, None, Announcement(flip.reason, flip.message, flip.bad))
