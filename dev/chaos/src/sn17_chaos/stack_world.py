"""The local stack under load: validators, workers, fixer and miner as processes, the operator beside them.

The stack runs on an event loop of its own in a thread; everything public is called from outside of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from sn17.up.gateway import KEY_FILE
from sn17.up.health import under_way
from sn17.up.process import ManagedProcess
from sn17.up.stack import Stack, StackOptions
from sn17_contract.tasks import Outcome
from sn17_http import own_async_client, own_client
from sn17_miner.journal.reader import JournalError
from sn17_operator.adapters.local import LocalEvent, LocalOperator
from sn17_operator.core.plan import Reason

from sn17_chaos.disks import SmallDisk
from sn17_chaos.faults import CannotInjectError
from sn17_chaos.history import OPEN, Act, Assigned, Completed, History, Journalled, Recycle, Span
from sn17_chaos.looks import Look, Position, handed_out, seen
from sn17_chaos.new_lines import NewLines
from sn17_chaos.stack_clients import Clients
from sn17_chaos.stack_parts import completed, journalled, open_tasks, operator_over
from sn17_chaos.stack_settings import MAX_GAUSSIANS, SLOW_SECONDS, quick_settings

T = TypeVar("T")

POLL_SECONDS = 0.25
WORKING = ("ready", "busy")


@dataclass(slots=True)
class StackWorld:
    """``start`` it, break it, ``close`` it. Wall-clock seconds of this process are its time."""

    folder: Path
    seed: int
    workers: int = 2
    validators: int = 3
    operated: bool = True
    """Run the operator."""
    gateway: bool = True
    """Run a gateway, and somebody who asks it for assets."""
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More environment of single processes, by name."""
    name: str = "stack"
    causes: dict[tuple[str, str], str] = field(default_factory=dict)
    """(worker, boot id) -> what is wrong with this incarnation: its recycle has a cause."""
    disks: dict[str, SmallDisk] = field(default_factory=dict)
    no_disks: str = ""
    log: list[str] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    recycles: list[Recycle] = field(default_factory=list)
    usable: list[Span] = field(default_factory=list)
    acting: set[str] = field(default_factory=set)
    cut: float = 0.0
    stack: Stack = field(init=False)
    operator: LocalOperator = field(init=False)
    http: httpx2.Client = field(init=False)
    clients: Clients | None = field(init=False, default=None)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _thread: threading.Thread = field(init=False)
    _client: httpx2.AsyncClient = field(init=False)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _completed: list[Completed] = field(default_factory=list)
    _logs: NewLines = field(default_factory=NewLines)

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and wait for the first accepted task."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stack", daemon=True)
        self._thread.start()
        self.http = own_client(timeout=5.0)
        self._mount()
        self.run(self._start())
        self.wait("the first accepted task", lambda: self._accepted_since(0.0), 60.0)
        self.cut = time.time()
        if self.gateway:
            self.clients = Clients(self._gateway_url, (self.folder / KEY_FILE).read_text().strip())

    def close(self) -> None:
        """Stop everything; leaves the folder with its logs."""
        if self.clients is not None:
            self.clients.close()
        with contextlib.suppress(Exception):
            self.run(self._close())
        for process in self.processes().values():
            process.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self.http.close()
        for disk in self.disks.values():
            disk.unmount()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the stack's loop and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(400.0)

    def call(self, work: Callable[[], T]) -> T:
        """Call on the stack's loop."""

        async def calling() -> T:
            return work()

        return self.run(calling())

    def wait(self, what: str, found: Callable[[], Any], seconds: float, every: float = POLL_SECONDS) -> Any:
        """The first true answer within a deadline. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx2.HTTPError, sqlite3.Error, JournalError, OSError):
                if answer := found():
                    return answer
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s")
            time.sleep(every)

    def live(self, seconds: float) -> None:
        """Let the stack go on for a while."""
        time.sleep(seconds)

    # --- who is who -----------------------------------------------------------------------------

    def processes(self) -> dict[str, ManagedProcess]:
        stack = self.stack
        found = [stack.devnet, stack.fixer, stack.miner, stack.gateway, *stack.workers]
        return {process.spec.name: process for process in found if process is not None}

    def pid(self, name: str) -> int:
        """Process id of the running incarnation."""
        process = self.processes()[name]._process
        if process is None or process.returncode is not None:
            return 0
        return process.pid

    def worker_names(self) -> list[str]:
        return [worker.spec.name for worker in self.stack.workers]

    def restart_with(self, name: str, **env: str) -> None:
        """Kill a process; its next incarnations have these settings on top of their own."""
        process = self.processes()[name]

        def swap() -> None:
            process.spec = replace(process.spec, env={**process.spec.env, **env})
            process.kill()

        self.call(swap)

    def next_life(self, name: str, **env: str) -> None:
        """Change the settings of a process from its next incarnation on."""
        process = self.processes()[name]
        process.spec = replace(process.spec, env={**process.spec.env, **env})

    def up(self, name: str) -> bool:
        """Whether a worker takes work, by a look of the last second."""
        look = self.looks.get(name)
        return look is not None and look.state in WORKING and time.time() - look.at < 1.0

    # --- trials ---------------------------------------------------------------------------------

    def position(self) -> Position:
        return Position(time.time(), len(self.acts), len(self.recycles), len(self._read_completed()))

    def recovered(self, since: float) -> str:
        """What is not as before; empty when all is. ``since``: when the fault was over."""
        for name in self.worker_names():
            if not self.up(name):
                return f"{name} is {self.looks[name].state}"
        if self.operated and under_way(self.operator):
            return "the operator is still at work"
        for name in ("fixer", "miner", *(("gateway",) if self.gateway else ())):
            if not self._answers(name):
                return f"the {name} does not answer"
        if self.clients is not None and (left := self.clients.open_since(since)):
            return f"a client waits for task {left[0].task_id[:8]}"
        ledger = self.ledger()
        for validator in ledger["validators"]:
            if not validator["up"]:
                return "a validator is away"
        tasks = handed_out(ledger)
        for task in tasks:
            if task.assigned_at <= since and task.outcome == OPEN:
                return f"task {task.task_id[:8]} is open"
        if not any(task.assigned_at > since and task.outcome == Outcome.ACCEPTED for task in tasks):
            return "no task pulled since was accepted"
        if any(task.pulled_at <= since for task in open_tasks(self.folder / "miner" / "journal.sqlite")):
            return "a task is under way in the journal"
        return ""

    def recover(self, since: float, deadline: float) -> str:
        """Wait until all is as before; what is not by then."""
        try:
            self.wait("recovery", lambda: not self.recovered(since), deadline, 0.4)
        except TimeoutError:
            try:
                return self.recovered(since)
            except (httpx2.HTTPError, sqlite3.Error, JournalError, OSError) as error:
                return f"{type(error).__name__}: {error}"
        return ""

    def history(self, position: Position, until: float, unrecovered: str) -> History:
        """Everything since that position; tasks handed out up to ``until``, when the fault was over."""
        tasks = handed_out(self.ledger()) + (self.clients.handed_out() if self.clients else [])
        assigned = [task for task in tasks if self.cut < task.assigned_at <= until]
        self.cut = until
        known = {task.task_id for task in assigned}
        return History(
            assigned=assigned,
            journalled=[entry for entry in self.journalled() if entry.task_id in known],
            completed=self._read_completed(),
            acts=self.acts[position.acts :],
            recycles=self.recycles[position.recycles :],
            usable=list(self.usable),
            recovered=not unrecovered,
            unrecovered=unrecovered,
        )

    # --- sources --------------------------------------------------------------------------------

    def ledger(self) -> dict[str, Any]:
        """The validators' ledgers: the referee's view."""
        found: dict[str, Any] = self.http.get(self.stack.devnet_info().ledger_url).raise_for_status().json()
        return found

    def open_tasks(self) -> list[Assigned]:
        """What the miner holds by the validators' ledgers."""
        return [task for task in handed_out(self.ledger()) if task.outcome == OPEN]

    def _accepted_since(self, since: float) -> bool:
        tasks = handed_out(self.ledger())
        return any(task.assigned_at > since and task.outcome == Outcome.ACCEPTED for task in tasks)

    def journalled(self) -> list[Journalled]:
        """What the miner's own records say of every task."""
        return journalled(self.folder / "miner" / "journal.sqlite")

    def _read_completed(self) -> list[Completed]:
        for name in self.worker_names():
            self._completed += completed(name, self._logs.new(self.processes()[name].log_path))
        return list(self._completed)

    def _gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.processes()['gateway'].ready.port}"

    def _answers(self, name: str) -> bool:
        port = self.processes()[name].ready.ops_port
        try:
            return self.http.get(f"http://127.0.0.1:{port}/health", timeout=2.0).is_success
        except httpx2.HTTPError:
            return False

    # --- on the loop ----------------------------------------------------------------------------

    def _mount(self) -> None:
        try:
            for name in ("miner", "gateway", *(f"trellis-{n}" for n in range(1, self.workers + 1))):
                self.disks[name] = SmallDisk(self.folder / name, 64)
        except CannotInjectError as error:
            self.no_disks = str(error)

    def clock_file(self, name: str) -> Path:
        """Seconds by which the wall clock of a process is off."""
        return self.folder / f"{name}.clock"

    def token_file(self, name: str) -> Path:
        """The admin token as this process knows it."""
        return self.folder / f"{name}.token"

    async def _start(self) -> None:
        self._client = own_async_client(timeout=1.0)
        options = StackOptions(
            state_dir=self.folder,
            validators=self.validators,
            workers=self.workers,
            seed=self.seed,
            max_gaussians=MAX_GAUSSIANS,
            memory_limit_bytes=512 << 20,
            faults={"slow_seconds": SLOW_SECONDS},
            settings=quick_settings(self.workers, self.clock_file, self.token_file, self.settings),
            forgiven_after=4.0,
            start_timeout=150.0,
            gateway=self.gateway,
        )
        self.stack = Stack(options, self.say, self._client)
        for name in (*options.settings, "operator"):
            self.token_file(name).write_text(self.stack.admin_token)
        await self.stack.start()
        for name in self.worker_names():
            self.looks[name] = Look()
        self._spawn("looks", self._look_on())
        if self.operated:
            self.start_operator()

    async def _close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.stack.stop()
        await self._client.aclose()

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(work, name=name)

    def start_operator(self) -> None:
        """On the loop: a new operator that knows nothing of an earlier one."""
        self.acting.clear()
        by_name = {worker.spec.name: worker for worker in self.stack.workers}

        async def restart(name: str) -> None:
            # The escalation of a request to exit that did nothing is the same recycle.
            if not any(done.incarnation == self.looks[name].boot_id for done in self.recycles):
                self._recycled(name)
            # The local host forgets what it was about with the eviction.
            self.acting.discard(name)
            by_name[name].kill()

        self.operator = operator_over(self.stack, self.token_file("operator"), self._noticed, restart)
        self._spawn("operator", self.operator.run())

    def kill_operator(self) -> None:
        """On the loop: end it wherever it stands."""
        self._tasks["operator"].cancel()

    def _noticed(self, event: LocalEvent) -> None:
        self.say(event.worker or "operator", f"{event.reason}: {event.message}")
        if not event.worker:
            return
        if event.reason in (Reason.WORKER_CORDONED, Reason.RECYCLE_REQUESTED):
            if event.worker not in self.acting:
                self.acting.add(event.worker)
                self.acts.append(self._act(event))
            if event.reason == Reason.RECYCLE_REQUESTED:
                self._recycled(event.worker)
        elif event.reason in (
            Reason.WORKER_HEALED,
            Reason.MEMORY_CLEARED,
            Reason.CANARY_PASSED,
            Reason.REMEDIATION_WITHDRAWN,
            Reason.REMEDIATION_FAILED,
            Reason.REPLACEMENT_PENDING,
            Reason.WORKER_RESTARTED,
        ):
            self.acting.discard(event.worker)

    def _act(self, event: LocalEvent) -> Act:
        look = self.looks[event.worker]
        others = sum(not self.up(name) for name in self.worker_names() if name != event.worker)
        return Act(
            at=event.at,
            worker=event.worker,
            incarnation=look.boot_id,
            reason=event.reason,
            unavailable=others + 1,
            acting=len(self.acting),
            budget=max(1, self.workers // 4),
            costs=self.up(event.worker),
        )

    def _recycled(self, name: str) -> None:
        boot_id = self.looks[name].boot_id
        self.recycles.append(Recycle(time.time(), name, boot_id, self.causes.get((name, boot_id))))

    def say(self, name: str, text: str) -> None:
        self.log.append(f"{time.time():.1f}  {name}: {text}")

    async def _look_on(self) -> None:
        while True:
            await asyncio.gather(*(self._look(worker) for worker in self.stack.workers))
            now = time.time()
            if any(self.up(name) for name in self.worker_names()):
                seen(self.usable, now, 1.0)
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self, worker: ManagedProcess) -> None:
        look = self.looks[worker.spec.name]
        try:
            answer = await self._client.get(f"http://127.0.0.1:{worker.ready.port}/v1/worker")
            said = answer.raise_for_status().json()
        except (httpx2.HTTPError, ValueError) as error:
            look.state, look.job = f"unreachable ({type(error).__name__})", None
            return
        look.heard(said, time.time())
