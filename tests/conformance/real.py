"""The reference side: the real Axon and Dendrite of bittensor 10.5.0 with the subnet's three calls.

Their look-up of this machine's public address goes to the internet and is stubbed; nothing else is.
"""

import contextlib
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Literal, Tuple  # noqa: UP035 (the Axon compares signatures with typing.Tuple)

os.environ["READ_ONLY"] = "1"

import bittensor_wallet
from bittensor.core import axon as axon_module
from bittensor.core import dendrite as dendrite_module
from bittensor.core.axon import Axon
from bittensor.core.chain_data import AxonInfo
from bittensor.core.dendrite import Dendrite
from bittensor.core.synapse import Synapse
from pydantic import BaseModel

PUBLIC_IP = "203.0.113.7"


def no_lookup():
    return PUBLIC_IP


axon_module.networking.get_external_ip = no_lookup
dendrite_module.networking.get_external_ip = no_lookup


class TextTask(BaseModel):
    type: Literal["text"] = "text"
    id: str
    prompt: str


class ImageTask(BaseModel):
    type: Literal["image"] = "image"
    id: str
    prompt: str


class Feedback(BaseModel):
    validation_failed: bool = False
    task_fidelity_score: float = 0.0
    average_fidelity_score: float = 0.0
    generations_within_the_window: int = 0
    current_duel_rating: float = 0.0
    current_miner_reward: float = 0.0


class PullTask(Synapse):
    task: TextTask | ImageTask | None = None
    validation_threshold: float = 0.6
    throttle_period: int = 0
    cooldown_until: int = 0
    cooldown_violations: int = 0


class SubmitResults(Synapse):
    task: TextTask | ImageTask | None = None
    task_id: str = ""
    results: str
    data_format: str = "ply"
    data_ver: int = 0
    compression: int = 2
    submit_time: int
    signature: str
    feedback: Feedback | None = None
    cooldown_until: int = 0


class GetVersion(Synapse):
    version: int = 0
    validation_version: str = ""


class Wallet(bittensor_wallet.Wallet):
    """A wallet in memory."""

    def __new__(cls, keypair):
        return super().__new__(cls, name="conformance", hotkey="none", path="/nonexistent")

    def __init__(self, keypair):
        self._keypair = keypair

    @property
    def hotkey(self):
        return self._keypair

    @property
    def coldkeypub(self):
        return self._keypair


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class RealAxon:
    """A real Axon that answers the subnet's calls and remembers what its handlers saw."""

    keypair: bittensor_wallet.Keypair
    port: int = field(default_factory=free_port)
    seen: list = field(default_factory=list)
    task: TextTask | ImageTask | None = None
    blacklisted: set = field(default_factory=set)

    @property
    def hotkey(self):
        return self.keypair.ss58_address

    @contextlib.contextmanager
    def serving(self):
        async def pull(synapse: PullTask) -> PullTask:
            self.seen.append(synapse)
            if synapse.dendrite is None:
                raise RuntimeError("no dendrite")
            synapse.task = self.task
            synapse.throttle_period = 30
            return synapse

        async def submit(synapse: SubmitResults) -> SubmitResults:
            self.seen.append(synapse.model_copy())
            synapse.results = ""
            synapse.signature = ""
            synapse.feedback = Feedback(task_fidelity_score=0.75)
            synapse.cooldown_until = 1234
            return synapse

        async def version(synapse: GetVersion) -> GetVersion:
            synapse.version = 9
            return synapse

        async def turn_away(synapse: SubmitResults) -> Tuple[bool, str]:  # noqa: UP006
            return synapse.dendrite.hotkey in self.blacklisted, "no task assigned"

        axon = Axon(wallet=Wallet(self.keypair), port=self.port, ip="127.0.0.1", external_ip="127.0.0.1")
        axon.fast_config.host = "127.0.0.1"
        axon.attach(forward_fn=pull)
        axon.attach(forward_fn=submit, blacklist_fn=turn_away)
        axon.attach(forward_fn=version)
        axon.start()
        try:
            wait_for_port(self.port)
            yield self
        finally:
            axon.stop()


def wait_for_port(port, deadline=20.0):
    end = time.monotonic() + deadline
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            threading.Event().wait(0.02)


def axon_info(hotkey, port, ip="127.0.0.1"):
    return AxonInfo(version=10005000, ip=ip, port=port, ip_type=4, hotkey=hotkey, coldkey=hotkey)


@contextlib.asynccontextmanager
async def dendrite_of(keypair):
    dendrite = Dendrite(wallet=keypair)
    try:
        yield dendrite
    finally:
        await dendrite.aclose_session()
