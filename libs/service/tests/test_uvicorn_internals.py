"""The private parts of uvicorn's h11 protocol that the head timeout rests on are still there."""

from __future__ import annotations

import asyncio

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState


async def test_the_attributes_of_the_h11_protocol_that_are_read_exist() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        """Never called."""

    config = uvicorn.Config(app, http="h11", ws="none", lifespan="off")
    config.load()
    protocol = H11Protocol(config=config, server_state=ServerState(), app_state={})
    assert protocol.loop is asyncio.get_running_loop()
    assert protocol.conn.their_state is h11.IDLE
    assert protocol.cycle is None
    assert protocol.scope is None
    for method in ("connection_made", "data_received", "connection_lost"):
        assert callable(getattr(protocol, method))
