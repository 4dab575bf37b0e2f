"""The page in the browser, with this gateway behind it."""

from __future__ import annotations

from sn17_page import MinerReader, Page, Queue

from sn17_gateway.gateway import Gateway
from sn17_gateway.http.guard import Guard


def page_of(gateway: Gateway, guard: Guard) -> Page:
    """What the page needs of this gateway."""
    settings = gateway.settings
    miner = settings.miner_url or settings.miner_ready_file

    def queue() -> Queue | None:
        if (seen := gateway.snapshot) is None:
            return None
        oldest = gateway.read_at if seen.oldest is None else seen.oldest
        return Queue(waiting=seen.waiting, working=seen.in_progress, oldest_seconds=gateway.read_at - oldest)

    return Page(
        node=settings.node_name,
        listens_on=settings.host,
        authorize=guard.caller,
        guest_key=settings.generic_key.get_secret_value() if settings.generic_key else None,
        queue=queue,
        clock=gateway.clock,
        miner=MinerReader(miner, settings.miner_token_file) if miner else None,
    )
