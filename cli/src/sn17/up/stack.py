"""The local stack: which processes run, with which settings, in which order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sn17.up.gateway import ADMIN_FILE, KEY_FILE, gateway_env
from sn17.up.process import FORGIVEN_AFTER_SECONDS, ManagedProcess, ProcessFailedError, ProcessSpec
from sn17_contract.local_network import DESCRIPTION_FILE, LocalNetwork
from sn17_files import write_atomically

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What `sn17 up` was asked for."""

    state_dir: Path
    validators: int = 2
    workers: int = 2
    tasks: int | None = None
    backend: str = "procedural"
    time_scale: float = 0.01
    seed: int = 17
    max_gaussians: int = 100_000
    image_ratio: float = 0.2
    memory_limit_bytes: int = 1024 * MIB
    faults: Mapping[str, Any] = field(default_factory=dict)
    faulty_worker_faults: Mapping[str, Any] = field(default_factory=dict)
    """Added to ``faults`` for the last worker."""
    gateway: bool = False
    """Whether a gateway takes prompts of clients."""
    gateway_port: int = 0
    """0 picks a free one."""
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Environment of single processes by name, above everything else."""
    forgiven_after: float = FORGIVEN_AFTER_SECONDS
    """See ``ProcessSpec``."""
    start_timeout: float = 300.0
    """Seconds until a process that lives must take work: a busy machine takes its time to load a model."""


@dataclass(slots=True)
class Stack:
    """The running processes by role."""

    options: StackOptions
    on_event: Callable[[str, str], None]
    client: httpx2.AsyncClient
    devnet: ManagedProcess | None = field(init=False, default=None)
    fixer: ManagedProcess | None = field(init=False, default=None)
    miner: ManagedProcess | None = field(init=False, default=None)
    gateway: ManagedProcess | None = field(init=False, default=None)
    workers: list[ManagedProcess] = field(init=False, default_factory=list)
    admin_token: str = field(init=False, default_factory=lambda: secrets.token_urlsafe(32))

    async def start(self) -> None:
        """Start everything; the miner last, when all it talks to is ready.

        Raises:
            ProcessFailedError: a process could not be started; its log's end is in the message.
        """
        options = self.options
        options.state_dir.mkdir(parents=True, exist_ok=True)
        self._write_secret(self.token_file, self.admin_token)
        self.devnet = self._managed(
            "validators",
            "sn17_devnet",
            {
                "SN17_VALIDATORS": str(options.validators),
                "SN17_STATE_DIR": str(options.state_dir / "validators"),
                "SN17_TIME_SCALE": str(options.time_scale),
                "SN17_SEED": str(options.seed),
                "SN17_IMAGE_RATIO": str(options.image_ratio),
            },
        )
        self.fixer = self._managed("fixer", "sn17_fixer", {})
        self.workers.extend(self._worker(index) for index in range(1, options.workers + 1))
        others = [self.devnet, self.fixer, *self.workers]
        if options.gateway:
            self.gateway = self._managed(
                "gateway", "sn17_gateway", gateway_env(options.state_dir, options.gateway_port)
            )
            others.append(self.gateway)
        await asyncio.gather(*(process.start(options.start_timeout) for process in others))
        await asyncio.gather(*(self._accepts_work(process, options.start_timeout) for process in others))
        self.miner = self._managed(
            "miner", "sn17_miner", self._miner_env(self.fixer), restart=options.tasks is None
        )
        await self.miner.start(options.start_timeout)

    async def stop(self) -> None:
        """Stop the miner first, so that it can still hand in what is done."""
        if self.miner is not None:
            await self.miner.stop()
        others = (*self.workers, self.fixer, self.devnet, self.gateway)
        await asyncio.gather(*(process.stop() for process in others if process is not None))

    def kill(self) -> None:
        """End every process at once."""
        for process in (self.miner, *self.workers, self.fixer, self.devnet, self.gateway):
            if process is not None:
                process.abandon()

    def addresses(self) -> list[str]:
        """A line for each process that a person may ask."""
        said = [f"{worker.spec.name}: http://127.0.0.1:{worker.ready.port}" for worker in self.workers]
        if self.miner is not None:
            said.append(f"miner: http://127.0.0.1:{self.miner.ready.ops_port}")
        if self.gateway is not None:
            ready = self.gateway.ready
            said.append(f"page: http://127.0.0.1:{ready.port}/  ask for an asset, see what the workers made")
            said.append(
                f"gateway: http://127.0.0.1:{ready.port}  guests' key, without limits: "
                f"{self.options.state_dir / KEY_FILE}"
            )
            said.append(
                f"  more keys: sn17 gateway key create NAME --url http://127.0.0.1:{ready.ops_port} "
                f"--token-file {self.token_file}"
            )
        return said

    async def _accepts_work(self, process: ManagedProcess, timeout: float) -> None:
        """Wait for the readiness that Kubernetes would wait for: warmed up, not only listening."""
        url = f"http://127.0.0.1:{process.ready.ops_port}/ready"
        answer = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    with contextlib.suppress(httpx2.TransportError):
                        response = await self.client.get(url)
                        if response.is_success:
                            return
                        answer = response.text
                    await asyncio.sleep(0.1)
        raise ProcessFailedError(
            f"{process.spec.name} listens but accepts no work: {answer}\n{process.tail()}"
        )

    @property
    def token_file(self) -> Path:
        """The admin token of this run, readable by its owner only."""
        return self.options.state_dir / ADMIN_FILE

    def devnet_info(self) -> LocalNetwork:
        """What the validators wrote about themselves: addresses, hotkeys, the snapshot's URL.

        Raises:
            WrongShapeError: the file is of another schema.
        """
        file = self.options.state_dir / "validators" / DESCRIPTION_FILE
        return LocalNetwork.parse(file.read_bytes(), file)

    def _managed(
        self,
        name: str,
        module: str,
        env: Mapping[str, str],
        arguments: tuple[str, ...] = (),
        *,
        restart: bool = True,
    ) -> ManagedProcess:
        common = {
            "SN17_PORT": "0",
            "SN17_OPS_PORT": "0",
            "SN17_ADMIN_TOKEN_FILE": str(self.token_file),
            "SN17_MEMORY_SOURCE": "process",
        }
        own = self.options.settings.get(name, {})
        spec = ProcessSpec(
            name, module, arguments, {**common, **env, **own}, restart, self.options.forgiven_after
        )
        return ManagedProcess(spec, self.options.state_dir, on_event=self.on_event)

    def _worker(self, index: int) -> ManagedProcess:
        name = f"trellis-{index}"
        env = {
            "SN17_WORKER_NAME": name,
            "SN17_BACKEND": self.options.backend,
            "SN17_SPOOL_DIR": str(self.options.state_dir / name),
            "SN17_PROCEDURAL_MAX_GAUSSIANS": str(self.options.max_gaussians),
            "SN17_MEMORY_LIMIT_BYTES": str(self.options.memory_limit_bytes),
            "SN17_TORCH_THREADS": str(max(1, (os.cpu_count() or 1) // self.options.workers)),
        }
        faults = dict(self.options.faults)
        if index == self.options.workers:
            faults |= self.options.faulty_worker_faults
        if faults:
            env["SN17_FAULTS"] = json.dumps(faults)
        return self._managed(name, "sn17_trellis", env, ("serve",))

    def _miner_env(self, fixer: ManagedProcess) -> dict[str, str]:
        info = self.devnet_info()
        env = {
            "SN17_HOTKEY_FILE": str(self.options.state_dir / "validators" / "miner_hotkey.json"),
            "SN17_CHAIN__SOURCE": "http",
            "SN17_CHAIN__URL": info.snapshot_url,
            "SN17_WORKERS": ",".join(f"http://127.0.0.1:{worker.ready.port}" for worker in self.workers),
            "SN17_FIXER_URL": f"http://127.0.0.1:{fixer.ready.port}",
            "SN17_STATE_DIR": str(self.options.state_dir / "miner"),
            "SN17_KEEP_ASSETS": os.environ.get("SN17_KEEP_ASSETS", "200"),
            "SN17_TIME_SCALE": str(self.options.time_scale),
        }
        if self.gateway is not None:
            url = f"http://127.0.0.1:{self.gateway.ready.port}"
            env["SN17_GATEWAYS"] = json.dumps([{"name": "own", "url": url, "follow_nodes": False}])
        if self.options.tasks is not None:
            env["SN17_MAX_TASKS"] = str(self.options.tasks)
        return env

    @staticmethod
    def _write_secret(path: Path, text: str) -> None:
        write_atomically(path, text.encode(), mode=0o600)
