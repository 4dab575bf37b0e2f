"""The local stack: which processes run, with which settings, in which order."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .process import ManagedProcess, ProcessSpec

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
    sick_worker_faults: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Stack:
    """The running processes by role."""

    options: StackOptions
    on_event: Callable[[str, str], None]
    devnet: ManagedProcess = field(init=False)
    fixer: ManagedProcess = field(init=False)
    miner: ManagedProcess = field(init=False)
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
        await self.devnet.start()
        self.fixer = self._managed("fixer", "sn17_fixer", {})
        await self.fixer.start()
        for index in range(1, options.workers + 1):
            self.workers.append(self._worker(index))
        for worker in self.workers:
            await worker.start()
        self.miner = self._managed("miner", "sn17_miner", self._miner_env(), restart=options.tasks is None)
        await self.miner.start()

    async def stop(self) -> None:
        """Stop in the reverse order, so that the miner can still hand in what is done."""
        for process in (
            getattr(self, "miner", None),
            *self.workers,
            getattr(self, "fixer", None),
            getattr(self, "devnet", None),
        ):
            if process is not None:
                await process.stop()

    @property
    def token_file(self) -> Path:
        """The admin token of this run, readable by its owner only."""
        return self.options.state_dir / "admin-token"

    def devnet_info(self) -> dict[str, Any]:
        """What the validators wrote about themselves: addresses, hotkeys, the snapshot's URL."""
        loaded: dict[str, Any] = json.loads(
            (self.options.state_dir / "validators" / "devnet.json").read_text()
        )
        return loaded

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
        spec = ProcessSpec(name, module, arguments, {**common, **env}, restart)
        return ManagedProcess(spec, self.options.state_dir, on_event=self.on_event)

    def _worker(self, index: int) -> ManagedProcess:
        name = f"trellis-{index}"
        env = {
            "SN17_WORKER_NAME": name,
            "SN17_BACKEND": self.options.backend,
            "SN17_SPOOL_DIR": str(self.options.state_dir / name),
            "SN17_PROCEDURAL_MAX_GAUSSIANS": str(self.options.max_gaussians),
            "SN17_MEMORY_LIMIT_BYTES": str(self.options.memory_limit_bytes),
        }
        if index == self.options.workers and self.options.sick_worker_faults:
            env["SN17_FAULTS"] = json.dumps(self.options.sick_worker_faults)
        return self._managed(name, "sn17_trellis", env, ("serve",))

    def _miner_env(self) -> dict[str, str]:
        info = self.devnet_info()
        env = {
            "SN17_HOTKEY_FILE": str(self.options.state_dir / "validators" / "miner_hotkey.json"),
            "SN17_CHAIN__SOURCE": "http",
            "SN17_CHAIN__URL": str(info["snapshot_url"]),
            "SN17_WORKERS": ",".join(f"http://127.0.0.1:{worker.ready.port}" for worker in self.workers),
            "SN17_FIXER_URL": f"http://127.0.0.1:{self.fixer.ready.port}",
            "SN17_STATE_DIR": str(self.options.state_dir / "miner"),
            "SN17_TIME_SCALE": str(self.options.time_scale),
        }
        if self.options.tasks is not None:
            env["SN17_MAX_TASKS"] = str(self.options.tasks)
        return env

    @staticmethod
    def _write_secret(path: Path, text: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
