"""Calls to validators: pull and submit, each on a connection of its own, each with a fresh nonce and uuid."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Generic, TypeVar

import aiohttp
from bittensor_wallet import Keypair
from sn17_protocol import Neuron, PullTask, SubmitResults, Synapse
from sn17_protocol.transport import TransportError, build_request, read_response

from sn17_miner.clients.web import never_sent, read_bounded, short, within
from sn17_miner.core.verdict import CallError

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""An image task carries its image as base64: 20 MB make 27."""

S = TypeVar("S", bound=Synapse)


@dataclass(frozen=True, slots=True)
class Answer(Generic[S]):
    """An answer and when the call ran (Unix seconds, our clock); ``date`` is the ``Date`` header."""

    value: S
    sent: float
    received: float
    date: float | None


class AxonClient:
    """Speaks to validators in the name of one hotkey. ``clock_ns``: nanoseconds since the epoch."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        keypair: Keypair,
        *,
        pull_timeout: float,
        submit_timeout: float,
        clock_ns: Callable[[], int],
        new_uuid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._session = session
        self._keypair = keypair
        self._pull_timeout = pull_timeout
        self._submit_timeout = submit_timeout
        self._clock_ns = clock_ns
        self._new_uuid = new_uuid

    async def pull(self, neuron: Neuron) -> Answer[PullTask]:
        """Ask for a task. Raises CallError."""
        return await self._call(neuron, PullTask(), self._pull_timeout)

    async def submit(self, neuron: Neuron, message: SubmitResults) -> Answer[SubmitResults]:
        """Hand in a result. Raises CallError."""
        return await self._call(neuron, message, self._submit_timeout)

    async def _call(self, neuron: Neuron, message: S, timeout: float) -> Answer[S]:
        # A large body takes its time to encode; the nonce is made after it, in the same step.
        request = await asyncio.to_thread(
            lambda: build_request(
                message,
                keypair=self._keypair,
                validator_hotkey=neuron.hotkey,
                ip=neuron.ip,
                port=neuron.port,
                timeout=timeout,
                nonce_ns=self._clock_ns(),
                uuid=self._new_uuid(),
            )
        )
        sent = self._clock_ns() / 1e9
        try:
            async with self._session.post(
                f"http://{neuron.address}{request.path}",
                data=request.body,
                headers=request.headers,
                timeout=within(timeout),
                allow_redirects=False,
            ) as response:
                body = await read_bounded(response, MAX_ANSWER_BYTES)
                received = self._clock_ns() / 1e9
        except TimeoutError as error:
            status = None if never_sent(error) else 408
            raise CallError(status, f"no answer within {timeout:g} s") from error
        except aiohttp.ClientPayloadError as error:
            raise CallError(422, short(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallError(None if never_sent(error) else 503, short(error)) from error
        try:
            value = await asyncio.to_thread(read_response, type(message), response.status, body)
        except TransportError as error:
            raise CallError(error.status, error.message) from error
        return Answer(value, sent, received, _date(response.headers.get("Date")))


def _date(header: str | None) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp() if header else None
    except ValueError:
        return None
