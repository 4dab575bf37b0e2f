"""A validator in this process, on a real port, with a miner's way to talk to it."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field

import aiohttp
from bittensor_wallet import Keypair
from sn17_devnet.faults import FaultPlan
from sn17_devnet.tasks import TaskSource
from sn17_devnet.validator import AxonOptions, Validator
from sn17_devnet.validator_state import Rules, Verdict
from sn17_protocol import PullTask, SubmitResults
from sn17_protocol.signing import sign_result
from sn17_protocol.transport import build_request, read_response

MINER = Keypair.create_from_uri("//Miner")
OTHER = Keypair.create_from_uri("//Other")
VALIDATOR = Keypair.create_from_uri("//Validator")


class Clock:
    """Real time that can be moved forward."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@dataclass
class Judge:
    """Answers when told to."""

    verdict: Verdict = field(default_factory=lambda: Verdict(0.8))
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    async def __call__(self, scene_task, results):
        self.calls += 1
        self.asked.set()
        await self.gate.wait()
        return self.verdict


class Local:
    """A validator on a real port, and a miner's way to talk to it."""

    def __init__(self, folder, faults=(), **options):
        self.clock = Clock()
        self.judge = Judge()
        self.judge.gate.set()
        self.metagraph = {1: MINER.ss58_address, 2: OTHER.ss58_address}
        self.validator = Validator(
            0,
            VALIDATOR,
            Rules(),
            TaskSource((1, 0), 0.0),
            self.judge,
            metagraph=lambda: self.metagraph,
            stake_of=lambda hotkey: 5000.0 if hotkey == OTHER.ss58_address else 0.0,
            state_file=folder / "state.json",
            options=AxonOptions(**({"host": "127.0.0.1"} | options)),
            faults=FaultPlan(faults, 0, 1),
            clock=self.clock,
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.validator.port}"

    def request(self, message, keypair=MINER, **overrides):
        values = {
            "keypair": keypair,
            "validator_hotkey": self.validator.hotkey,
            "ip": "127.0.0.1",
            "port": self.validator.port,
            "timeout": 12.0,
            "nonce_ns": int(self.clock() * 1e9),
            "uuid": str(uuid.uuid4()),
        } | overrides
        return build_request(message, **values)

    async def send(self, request, timeout=20.0):
        """Status and body of one call on a connection of its own."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                self.url + request.path,
                headers=request.headers,
                data=request.body,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response,
        ):
            return response.status, await response.read()

    async def call(self, message, keypair=MINER, timeout=20.0):
        status, body = await self.send(self.request(message, keypair), timeout)
        return read_response(type(message), status, body)

    async def pull(self, keypair=MINER):
        return await self.call(PullTask(), keypair)

    def submission(self, task, results="AAAA", keypair=MINER, **changes):
        submit_time = time.time_ns()
        fields = {
            "task_id": task.id,
            "results": results,
            "submit_time": submit_time,
            "signature": sign_result(
                keypair,
                submit_time=submit_time,
                prompt=task.prompt,
                validator_hotkey=self.validator.hotkey,
            ),
        } | changes
        return SubmitResults(**fields)

    async def submit(self, task, results="AAAA", keypair=MINER, timeout=20.0, **changes):
        return await self.call(self.submission(task, results, keypair, **changes), keypair, timeout)

    @property
    def records(self):
        return list(self.validator.ledger.records.values())
