"""The local network: who is registered, what the chain says, and the validators."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from bittensor_wallet import Keypair
from sn17_contract.local_network import LocalNetwork, NetworkLedger, ValidatorAddress
from sn17_protocol import ChainSnapshot, Neuron
from sn17_protocol.wallet import load_hotkey, write_hotkey

from sn17_devnet.faults import FaultPlan, FaultRule
from sn17_devnet.judging import judge
from sn17_devnet.settings import DevnetSettings
from sn17_devnet.tasks import SceneTask, TaskSource
from sn17_devnet.validator import AxonOptions, Validator
from sn17_devnet.validator_state import Rules, Verdict

T = TypeVar("T")

NETUID: Final = 17
BLOCK_SECONDS: Final = 12.0
FIRST_BLOCK: Final = 6_000_000
IMMUNITY_BLOCKS: Final = 5000
VALIDATOR_STAKE: Final = 50_000.0
BURN_PRICE: Final = 0.1
MINER_HOTKEY_FILE: Final = "miner_hotkey.json"
ALPHA_PER_TEMPO: Final = 148.0
"""What all miners together earn in a tempo: only shares of it matter here."""


class Network:
    """Validators, registrations and the clock they share."""

    def __init__(self, settings: DevnetSettings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.rules = Rules(quality_threshold=settings.quality_threshold).scaled(settings.time_scale)
        self._clock = clock
        self._started = clock()
        # One thread, as the real validation service has: submissions queue for it.
        self._scorer = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        self.miners: list[str | None] = list(settings.miner_hotkeys) or [self._own_miner()]
        """Registered miners in the order of their uids; None where one left."""
        self.registered_at: dict[str, int] = {hotkey: FIRST_BLOCK for hotkey in self.miners if hotkey}
        self.faults: tuple[FaultRule, ...] = settings.faults
        self.validators = [self._validator(index) for index in range(settings.validators)]

    async def start(self) -> None:
        """Start every validator."""
        for validator in self.validators:
            await validator.start()

    async def stop(self) -> None:
        await asyncio.gather(*(validator.close() for validator in self.validators))
        self._scorer.shutdown(wait=False, cancel_futures=True)

    async def keep_synced(self) -> None:
        """Let every validator read the chain at its interval."""
        async with asyncio.TaskGroup() as group:
            for validator in self.validators:
                group.create_task(validator.keep_synced())

    @property
    def ip(self) -> str:
        """The address everything is announced by; every address at once would mean that nobody serves."""
        host = self.settings.host
        return self.settings.advertise_ip or ("127.0.0.1" if host in ("0.0.0.0", "::", "any") else host)

    # --- the chain ----------------------------------------------------------------------------------

    @property
    def block(self) -> int:
        elapsed = self._clock() - self._started
        return FIRST_BLOCK + int(elapsed / (BLOCK_SECONDS * self.settings.time_scale))

    def snapshot(self) -> ChainSnapshot:
        """The chain as anyone would read it now."""
        block = self.block
        neurons = [
            Neuron(
                uid=validator.index,
                hotkey=validator.hotkey,
                ip=self.ip,
                port=validator.port,
                serving=True,
                stake=VALIDATOR_STAKE,
            )
            for validator in self.validators
        ]
        rewards = {hotkey: self._reward(hotkey) for hotkey in self.miners if hotkey}
        total = sum(rewards.values()) or 1.0
        for uid, hotkey in self._miner_uids():
            share = rewards[hotkey] / total
            registered = self.registered_at[hotkey]
            neurons.append(
                Neuron(
                    uid=uid,
                    hotkey=hotkey,
                    incentive=share,
                    emission=share * ALPHA_PER_TEMPO,
                    registered_at_block=registered,
                    immune_blocks_left=max(0, registered + IMMUNITY_BLOCKS - block),
                )
            )
        return ChainSnapshot(
            netuid=NETUID, block=block, taken_at=self._clock(), burn_price=BURN_PRICE, neurons=tuple(neurons)
        )

    def register(self, hotkey: str, replace: str | None = None) -> int:
        """Register a miner, in place of another if asked; returns the uid. Validators see it at their next
        sync.

        Raises:
            ValueError: not an address, registered already, or nobody to replace.
        """
        Keypair(ss58_address=hotkey)
        if hotkey in self.miners or hotkey in {validator.hotkey for validator in self.validators}:
            raise ValueError(f"{hotkey} is registered already")
        if replace is None:
            self.miners.append(hotkey)
            place = len(self.miners) - 1
        else:
            place = self._place(replace)
            self.miners[place] = hotkey
        self.registered_at[hotkey] = self.block
        return len(self.validators) + place

    def deregister(self, hotkey: str) -> None:
        """Take a miner off the chain.

        Raises:
            ValueError: it is not registered.
        """
        self.miners[self._place(hotkey)] = None

    # --- for people and tests -----------------------------------------------------------------------

    def whole_ledger(self) -> NetworkLedger:
        """The referee's view of every validator."""
        return NetworkLedger(
            schema="sn17.ledger/v1",
            taken_at=self._clock(),
            time_scale=self.settings.time_scale,
            validators=tuple(
                each.ledger.summary(each.hotkey, each.port, up=each.up.is_set()) for each in self.validators
            ),
        )

    def set_faults(self, rules: Sequence[FaultRule]) -> None:
        """Replace the faults of every validator."""
        self.faults = tuple(rules)
        for validator in self.validators:
            validator.faults = FaultPlan(rules, validator.index, self.settings.seed)

    def restart(self, index: int, seconds: float) -> None:
        """Restart a validator without waiting for it."""
        self.validators[index].restart_soon(seconds)

    def description(self, base_url: str, ops_url: str) -> LocalNetwork:
        """``devnet.json``: where everything is."""
        return LocalNetwork(
            schema="sn17.local-network/v1",
            snapshot_url=f"{base_url}/snapshot",
            ledger_url=f"{base_url}/ledger",
            faults_url=f"{base_url}/faults",
            validation_url=base_url,
            ops_url=ops_url,
            time_scale=self.settings.time_scale,
            miners=tuple(hotkey for hotkey in self.miners if hotkey),
            validators=tuple(
                ValidatorAddress(
                    hotkey=each.hotkey, ip=self.ip, port=each.port, url=f"http://{self.ip}:{each.port}"
                )
                for each in self.validators
            ),
        )

    async def judge(self, scene_task: SceneTask, results: str) -> Verdict:
        """Score a submission on the scorer's thread."""
        return await self.on_scorer(
            lambda: judge(scene_task, results, self.settings.strictness, detail=self.settings.detail)
        )

    async def on_scorer(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the one thread that scores."""
        return await asyncio.get_running_loop().run_in_executor(self._scorer, work)

    # --- making it ----------------------------------------------------------------------------------

    def _validator(self, index: int) -> Validator:
        settings = self.settings
        folder = settings.state_dir / f"validator-{index}"
        folder.mkdir(exist_ok=True)
        keypair = _own_hotkey(folder / "hotkey.json")
        return Validator(
            index,
            keypair,
            self.rules,
            TaskSource((settings.seed, index), settings.image_ratio),
            self.judge,
            metagraph=lambda: dict(self._miner_uids()),
            stake_of=self._stake_of,
            state_file=folder / "state.json",
            options=AxonOptions(
                host=settings.host,
                port=settings.axon_port + index if settings.axon_port else 0,
                require_signature=settings.require_signature,
                max_body_bytes=settings.max_body_bytes,
                body_timeout=settings.body_timeout_seconds,
            ),
            faults=FaultPlan(settings.faults, index, settings.seed),
            clock=self._clock,
        )

    def _own_miner(self) -> str:
        address: str = _own_hotkey(self.settings.state_dir / MINER_HOTKEY_FILE).ss58_address
        return address

    def _miner_uids(self) -> list[tuple[int, str]]:
        first = self.settings.validators
        return [(first + place, hotkey) for place, hotkey in enumerate(self.miners) if hotkey]

    def _place(self, hotkey: str) -> int:
        if hotkey not in self.miners:
            raise ValueError(f"{hotkey} is not registered")
        return self.miners.index(hotkey)

    def _stake_of(self, hotkey: str | None) -> float:
        return VALIDATOR_STAKE if any(hotkey == v.hotkey for v in self.validators) else 0.0

    def _reward(self, hotkey: str) -> float:
        return sum(validator.state.reward(hotkey) for validator in self.validators)


def _own_hotkey(path: Path) -> Keypair:
    """The hotkey in ``path``, made at the first start."""
    if not path.exists():
        write_hotkey(path, Keypair.create_from_mnemonic(Keypair.generate_mnemonic()))
    return load_hotkey(path)
