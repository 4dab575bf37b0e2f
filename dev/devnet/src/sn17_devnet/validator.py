"""One validator as a process sees it: an HTTP server of its own, its state, and that state on disk."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from bittensor_wallet import Keypair
from sn17_files import write_atomically
from sn17_protocol import GetVersion, PullTask, SubmitResults, Synapse
from sn17_protocol.signing import verify_result
from sn17_protocol.transport import NonceBook, TransportError, TransportHeaders, parse_request_headers

from sn17_devnet import wire
from sn17_devnet.faults import Fault, FaultKind, FaultPlan
from sn17_devnet.ledger import Ledger
from sn17_devnet.server import HEAD_SECONDS, Server, cut
from sn17_devnet.tasks import SceneTask, TaskSource
from sn17_devnet.validator_state import Rules, SubmitAnswer, UnknownMinerError, ValidatorState, Verdict

VALIDATION_VERSION: Final = "1.0.0"

Judge = Callable[[SceneTask, str], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class AxonOptions:
    """How a validator is served."""

    host: str
    port: int = 0
    require_signature: bool = False
    max_body_bytes: int = 256 * 1024**2
    body_timeout: float = 60.0
    head_timeout: float = HEAD_SECONDS


class Validator:
    """A local validator.

    Args:
        index: which one of the network.
        judge: scores a submission; may take its time.
        metagraph: uid -> hotkey, read at every sync.
        stake_of: stake of a hotkey on the chain; only stakers may ask for the version.
        state_file: where the state is saved at every sync.
    """

    def __init__(
        self,
        index: int,
        keypair: Keypair,
        rules: Rules,
        source: TaskSource,
        judge: Judge,
        *,
        metagraph: Callable[[], Mapping[int, str]],
        stake_of: Callable[[str | None], float],
        state_file: Path,
        options: AxonOptions,
        faults: FaultPlan,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.index = index
        self.hotkey: str = keypair.ss58_address
        self.ledger = Ledger()
        self.faults = faults
        self._keypair = keypair
        self._rules = rules
        self._source = source
        self._judge = judge
        self._metagraph = metagraph
        self._stake_of = stake_of
        self._state_file = state_file
        self._options = options
        self._clock = clock
        self._log = logging.getLogger(f"sn17.devnet.validator{index}")
        self._server = Server(
            self._handle,
            host=options.host,
            port=options.port,
            max_body_bytes=options.max_body_bytes,
            head_timeout=options.head_timeout,
            load=self._load,
            log=self._log,
        )
        self.state = self._fresh_state()
        self._nonces = self._fresh_nonces()

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load what was saved, read the chain, listen.

        Raises:
            OSError: the port is taken.
        """
        await self._server.start()

    async def stop(self) -> None:
        """Cut every connection and stop listening; nothing is saved, as in a crash."""
        await self._server.stop()

    async def restart(self, seconds: float) -> None:
        """Be gone for ``seconds``, then come back with the state of the last sync. One at a time."""
        await self._server.restart(seconds)

    async def close(self) -> None:
        """Stop for good, also in the middle of a restart."""
        await self._server.close()

    def restart_soon(self, seconds: float) -> None:
        """Restart without waiting for it."""
        self._server.restart_soon(seconds)

    @property
    def port(self) -> int:
        """0 before the first start where a free one is to be picked."""
        return self._server.port

    @property
    def up(self) -> asyncio.Event:
        """Set while it listens."""
        return self._server.up

    def _load(self) -> None:
        self.state = self._fresh_state()
        self._nonces = self._fresh_nonces()
        if self._state_file.exists():
            self.state.load(json.loads(self._state_file.read_text()))
        self.sync()

    def sync(self) -> None:
        """Read the chain and save the state, as happens every ``sync_interval``."""
        self.state.sync(self._metagraph())
        write_atomically(self._state_file, json.dumps(self.state.dump()).encode())

    async def keep_synced(self) -> None:
        """Sync forever."""
        while True:
            await asyncio.sleep(self._rules.sync_interval)
            if self.up.is_set():
                self.sync()

    # --- calls --------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        started = self._clock()
        call = request.path.split("/")[1]
        headers: TransportHeaders | None = None
        try:
            fault = self.faults.draw(call, "before")
            if fault and (broken := await self._inject(fault, request)):
                return broken
            unvalidated = fault is not None and fault.kind is FaultKind.UNVALIDATED
            kind = wire.kind_of(request.path)
            headers = parse_request_headers(request.headers, kind)
            self._turn_away(kind, headers)
            self._nonces.verify(headers, self.hotkey)
            synapse = await self._read(request, kind, headers)
            answered = await self._handler(synapse, unvalidated=unvalidated)
            answer = wire.success(answered, process_time=self._clock() - started)
            fault = self.faults.draw(call, "after")
            if fault and (broken := await self._inject(fault, request, answer.body)):
                return broken
        except TransportError as error:
            self._log.debug("refused", extra={"call": call, "status": error.status})
            answer = wire.failure(
                error,
                headers,
                keypair=self._keypair,
                now_ns=int(self._clock() * 1e9),
                process_time=self._clock() - started,
            )
        return web.Response(
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            content_type="application/json",
        )

    def _turn_away(self, kind: type[Synapse], headers: TransportHeaders) -> None:
        """The blacklist, which believes the headers before they are verified."""
        hotkey = headers.dendrite.hotkey
        reason = None
        if kind is SubmitResults:
            reason = self.state.refusal(hotkey)
        elif kind is GetVersion and self._stake_of(hotkey) < 1000.0:
            reason = f"{hotkey} has not the stake to ask"
        if reason is not None:
            raise TransportError(403, f"Forbidden. Key is blacklisted: {reason}.")

    async def _read(self, request: web.Request, kind: type[Synapse], headers: TransportHeaders) -> Synapse:
        if request.path.strip("/") != kind.__name__:
            raise TransportError(404, "Not Found")
        if request.method not in ("GET", "POST"):
            raise TransportError(405, "Method Not Allowed")
        try:
            async with asyncio.timeout(self._options.body_timeout):
                body = await request.read()
        except TimeoutError as error:
            raise TransportError(408, "the body did not arrive in time") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise TransportError(413, "the body is too large for this local validator") from error
        return wire.read_body(kind, request.headers.get("Content-Type", ""), body, headers)

    async def _handler(self, synapse: Synapse, *, unvalidated: bool) -> Synapse:
        try:
            return await self._answer(synapse, unvalidated=unvalidated)
        except TransportError:
            raise
        except Exception as error:
            self._log.exception("a handler failed")
            raise wire.internal_error() from error

    async def _answer(self, synapse: Synapse, *, unvalidated: bool) -> Synapse:
        if isinstance(synapse, PullTask):
            return self._pull(synapse)
        if isinstance(synapse, SubmitResults):
            return await self._submit(synapse, unvalidated=unvalidated)
        if isinstance(synapse, GetVersion):
            return synapse.model_copy(
                update={"version": wire.AXON_VERSION, "validation_version": VALIDATION_VERSION}
            )
        return synapse

    def _pull(self, synapse: PullTask) -> PullTask:
        if synapse.dendrite is None:
            raise wire.internal_error()
        answer = self.state.pull(synapse.dendrite_hotkey)
        if answer.task is None:
            update: dict[str, Any] = {
                "task": None,
                "cooldown_until": answer.cooldown_until,
                "cooldown_violations": answer.violations,
            }
        else:
            update = {
                "task": answer.task,
                "validation_threshold": self._rules.quality_threshold,
                "throttle_period": round(self._rules.throttle_period),
            }
        return synapse.model_copy(update=update)

    async def _submit(self, synapse: SubmitResults, *, unvalidated: bool) -> SubmitResults:
        state = self.state
        task_id = synapse.task_id or (synapse.task.id if synapse.task else "")

        def verify(prompt: str) -> bool:
            return verify_result(
                synapse.signature,
                submit_time=synapse.submit_time,
                prompt=prompt,
                validator_hotkey=str(synapse.axon_hotkey),
                miner_hotkey=str(synapse.dendrite_hotkey),
            )

        try:
            step = state.submit(synapse.dendrite_hotkey, task_id, empty=synapse.results == "", verify=verify)
        except (UnknownMinerError, ValueError) as error:
            raise wire.internal_error() from error
        if not isinstance(step, SubmitAnswer):
            if unvalidated:
                verdict = Verdict(failed=True, reason="validation service unreachable")
            else:
                verdict = await self._judge(step.assignment.scene_task, synapse.results)
            if state is not self.state:
                raise wire.internal_error()
            step = state.settle(step, verdict)
        return synapse.model_copy(
            update={
                "results": "",
                "signature": "",
                "feedback": step.feedback,
                "cooldown_until": step.cooldown_until,
            }
        )

    # --- faults -------------------------------------------------------------------------------------

    async def _inject(self, fault: Fault, request: web.Request, body: bytes = b"{") -> web.Response | None:
        """Have the fault; what it returns is sent in place of the answer."""
        self._log.info("fault", extra={"kind": fault.kind.value, "call": request.path, "when": fault.when})
        match fault.kind:
            case FaultKind.SLOW:
                await asyncio.sleep(fault.seconds)
            case FaultKind.STATUS:
                raise TransportError(fault.status, "injected fault")
            case FaultKind.GARBAGE:
                return web.Response(body=body[: max(1, len(body) // 2)], content_type="application/json")
            case FaultKind.RESET | FaultKind.RESTART:
                if fault.kind is FaultKind.RESTART:
                    self.restart_soon(fault.seconds)
                cut(request)
            case FaultKind.UNVALIDATED:
                pass
        return None

    def _fresh_state(self) -> ValidatorState:
        return ValidatorState(self._rules, self._clock, self._source, self.ledger)

    def _fresh_nonces(self) -> NonceBook:
        return NonceBook(lambda: int(self._clock() * 1e9), require_signature=self._options.require_signature)
