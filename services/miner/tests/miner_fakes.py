"""Small real HTTP servers with every fault at hand: validators, workers, a fixer, a validation service."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from bittensor_wallet import Keypair
from sn17_protocol import ChainSnapshot, Feedback, ImageTask, Neuron, PullTask, SubmitResults, TextTask
from sn17_protocol.signing import verify_result
from sn17_protocol.transport import NonceBook, TransportError, parse_request_headers

PLY = b"ply\nformat binary_little_endian 1.0\n" + b"x" * 5000
SPZ = b"spz" * 1000


class Changes:
    """Lets a test wait until something is true of the servers, however long that takes."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()

    async def happened(self) -> None:
        async with self._condition:
            self._condition.notify_all()

    async def until(self, true: Callable[[], Any], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds), self._condition:
            await self._condition.wait_for(true)


@dataclass
class Server:
    """An aiohttp application on a free port of the loopback."""

    changes: Changes = field(default_factory=Changes)
    port: int = 0
    runner: web.AppRunner | None = None

    def routes(self, app: web.Application) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        self.routes(app)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def reset(request: web.Request) -> web.Response:
    """Cut the connection (RST)."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def problem(status: int, code: str, **more: Any) -> web.Response:
    body = {"code": code, "detail": f"made to answer {code}", **more}
    return web.json_response(body, status=status, content_type="application/problem+json")


LOADS_SECONDS = 1.0


@dataclass
class FakeWorker(Server):
    """``script``: what the next generations do; then they work. ``hold`` makes them wait for ``go``."""

    name: str = "w0"
    boot_id: str = "boot-1"
    state: str = "ready"
    models: tuple[str, ...] = ("text", "image")
    memory: int = 1 << 20
    ply: bytes = PLY
    script: deque[str] = field(default_factory=deque)
    calibrated: bool = False
    hold: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    current: str | None = None
    step: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)
    completed: Counter[str] = field(default_factory=Counter)
    cancelled: list[str] = field(default_factory=list)
    on_generate: Callable[[str], Awaitable[None]] | None = None
    running: dict[str, asyncio.Future[bytes]] = field(default_factory=dict)

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/worker", self.status)
        app.router.add_post("/generate", self.generate)
        app.router.add_delete("/v1/jobs/{key:.+}", self.cancel)

    async def status(self, request: web.Request) -> web.Response:
        job = None
        if self.current is not None:
            job = {
                "key": self.current,
                "stage": "structure",
                "step": self.step,
                "steps": 25,
                "progress_at": 0.0,
            }
        state = "busy" if self.current is not None and self.state == "ready" else self.state
        return web.json_response(
            {
                "worker": self.name,
                "version": "0",
                "boot_id": self.boot_id,
                "life_id": f"life of {self.boot_id}",
                "state": state,
                "reason": None,
                "job": job,
                "memory": {
                    "unreclaimable_bytes": self.memory,
                    "working_set_bytes": self.memory,
                    "limit_bytes": 1 << 30,
                },
                "models": list(self.models),
                "gaussians_mean": None,
                "model_processes": 1,
                "recycling": None,
                "phase": None,
                "start_seconds": None,
                "last_recycle": None,
            }
        )

    async def generate(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        key = request.headers["Idempotency-Key"]
        image = form.get("prompt_image_file")
        content = image.file.read() if isinstance(image, web.FileField) else None
        lane = str(form.get("lane", "exact"))
        asked = {
            "key": key,
            "prompt": form.get("prompt"),
            "image": content,
            "seed": form["seed"],
            "lane": lane,
        }
        self.asked.append(asked)
        await self.changes.happened()
        if self.on_generate is not None:
            await self.on_generate("generate")
        if self.state != "ready":
            return problem(
                503, {"warming": "warming_up", "refusing": "memory_refused"}.get(self.state, self.state)
            )
        if self.current not in (None, key):
            return problem(503, "busy", retry_after_seconds=1)
        step = self.script.popleft() if self.script else "work"
        if step.isdecimal() or step in (
            "busy",
            "memory_refused",
            "overloaded",
            "gpu_out_of_memory",
            "draining",
        ):
            return problem(int(step) if step.isdecimal() else 503, step)
        if lane == "fast" and not self.calibrated:
            return problem(400, "bad_request")
        if step in ("empty_structure", "bad_prompt", "bad_image"):
            return problem(422, step)
        if step == "reset":
            return reset(request)
        if step == "restart":
            self._restart()
            return reset(request)
        if step == "garbage":
            return web.Response(body=b"\x00" * 100)
        if step == "hang":
            self.current = key
            await asyncio.Event().wait()
        body = await self._result(key)
        if step == "half":
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            return reset(request)
        if self.on_generate is not None:
            await self.on_generate("generated")
        headers = {"SN17-Seed": str(form["seed"]), "SN17-Gaussians": "60000", "SN17-Lane": lane}
        return web.Response(body=body, headers=headers)

    def _restart(self) -> None:
        """Another boot that names no models while it loads them."""
        models = self.models

        def loaded() -> None:
            self.state, self.models = "ready", models

        self.boot_id, self.state, self.models = f"{self.boot_id} again", "warming", ()
        asyncio.get_running_loop().call_later(LOADS_SECONDS, loaded)

    async def _result(self, key: str) -> bytes:
        """The kept result; or the running job's; or a new one, which a broken connection does not stop."""
        if key in self.kept:
            return self.kept[key]
        if key not in self.running:
            self.running[key] = asyncio.ensure_future(self._work(key))
        return await asyncio.shield(self.running[key])

    async def _work(self, key: str) -> bytes:
        self.current = key
        await self.changes.happened()
        if self.hold:
            await self.go.wait()
        self.completed[key] += 1
        self.kept[key] = self.ply
        self.current = None
        self.running.pop(key, None)
        await self.changes.happened()
        return self.ply

    async def cancel(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.cancelled.append(key)
        if self.current == key:
            self.current = None
        return web.json_response({"key": key, "result": "cancelled"})


def report_of(verdict: str = "healthy", *, gates_pass: bool = True) -> dict[str, Any]:
    """A complete report as the fixer sends it."""
    return {
        "schema": "sn17.fixer/v1",
        "verdict": verdict,
        "reasons": [],
        "gaussians_in": 9000,
        "gaussians_out": 9000,
        "alpha_mean": 0.6,
        "transparent_share": 0.1,
        "logit_mean": 0.5,
        "logit_std": 4.0,
        "pos_inf": 0,
        "gates_pass": gates_pass,
        "steps": [],
    }


@dataclass
class FakeFixer(Server):
    """``script``: statuses, ``reset`` or reports of the next answers; then ``report``."""

    report: dict[str, Any] = field(default_factory=report_of)
    script: deque[Any] = field(default_factory=deque)
    spz: bytes = SPZ
    received: list[bytes] = field(default_factory=list)
    on_fix: Callable[[str], Awaitable[None]] | None = None

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/fix", self.fix)

    async def fix(self, request: web.Request) -> web.Response:
        self.received.append(await request.read())
        await self.changes.happened()
        if self.on_fix is not None:
            await self.on_fix("fix")
        report = self.script.popleft() if self.script else self.report
        if report == "reset":
            return reset(request)
        if isinstance(report, int):
            return problem(report, "bad_splat" if report == 422 else "overloaded")
        headers = {"Content-Type": "application/x-spz-404"}
        if report != "no report":
            headers["SN17-Report"] = report if isinstance(report, str) else json.dumps(report)
        return web.Response(body=self.spz, headers=headers)


@dataclass
class FakeScorer(Server):
    """A validation service: answers with ``scores`` one after another, the last one for ever."""

    scores: deque[Any] = field(default_factory=lambda: deque([0.9]))
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/validate_txt_to_3d_ply/", self.score)
        app.router.add_post("/validate_img_to_3d_ply/", self.score)

    async def score(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, await request.json()))
        score = self.scores.popleft() if len(self.scores) > 1 else self.scores[0]
        return web.json_response({"score": score}) if isinstance(score, float) else web.Response(status=500)


@dataclass
class FakeValidator(Server):
    """A validator's ledger for one miner, and a script of faults per call.

    Pull steps: ``none``, ``unregistered``, ``500``, ``reset``, ``reset_after``, ``slow``.
    Submit steps: ``reject``, ``unvalidated``, ``drop`` (403 from now on), ``reset`` and ``500`` (not judged),
    ``reset_after``, ``500_after``, ``slow_after`` (judged, the answer lost), ``lock``, ``other`` (another
    task is assigned), ``401``.
    """

    uid: int = 1
    keypair: Keypair = field(default_factory=lambda: Keypair.create_from_uri(f"//{uuid.uuid4()}"))
    cooldown: float = 2.0
    penalty: float = 4.0
    throttle: int = 1
    clock_shift: float = 0.0
    tasks: deque[TextTask | ImageTask] = field(default_factory=deque)
    pull_script: deque[str] = field(default_factory=deque)
    submit_script: deque[str] = field(default_factory=deque)
    assigned: TextTask | ImageTask | None = None
    assigned_at: float = 0.0
    cooldown_until: int = 0
    violations: int = 0
    pulls: list[float] = field(default_factory=list)
    submits: list[SubmitResults] = field(default_factory=list)
    judged: list[tuple[str, str]] = field(default_factory=list)
    on_call: Callable[[str], Awaitable[None]] | None = None
    edit: Callable[[dict[str, Any]], Any] = lambda answer: None
    """Changes an answer on its way out."""
    nonces: NonceBook = field(default_factory=lambda: NonceBook(time.time_ns))

    @property
    def hotkey(self) -> str:
        return str(self.keypair.ss58_address)

    @property
    def neuron(self) -> Neuron:
        return Neuron(
            uid=self.uid, hotkey=self.hotkey, ip="127.0.0.1", port=self.port, serving=True, stake=5000.0
        )

    def now(self) -> float:
        return time.time() + self.clock_shift

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/PullTask", self.pull)
        app.router.add_post("/SubmitResults", self.submit)

    async def _verified(self, request: web.Request, kind: type[PullTask] | type[SubmitResults]) -> Any:
        self.nonces.verify(parse_request_headers(request.headers, kind), self.hotkey)
        return kind.model_validate_json(await request.read())

    async def pull(self, request: web.Request) -> web.Response:
        try:
            message: PullTask = await self._verified(request, PullTask)
        except TransportError as error:
            return web.json_response({"message": error.message}, status=error.status)
        now = self.now()
        self.pulls.append(now)
        await self.changes.happened()
        step = self.pull_script.popleft() if self.pull_script else "work"
        if step == "500":
            return web.json_response({"message": "made to fail"}, status=500)
        if step == "reset":
            return reset(request)
        if step == "unregistered":
            return self._answer(message.model_copy(update={"cooldown_until": int(now + 3600)}))
        if step == "none":
            return self._answer(message)
        if now < self.cooldown_until:
            self.violations += 1
            told = {"cooldown_until": self.cooldown_until, "cooldown_violations": self.violations}
            return self._answer(message.model_copy(update=told))
        if self.assigned is None:
            self.assigned = (
                self.tasks.popleft() if self.tasks else TextTask(id=str(uuid.uuid4()), prompt="a red cube")
            )
            self.assigned_at = now
        if self.on_call is not None:
            await self.on_call("pulled")
        if step == "reset_after":
            return reset(request)
        if step == "slow":
            await asyncio.Event().wait()
        update = {"task": self.assigned, "validation_threshold": 0.6, "throttle_period": self.throttle}
        return self._answer(message.model_copy(update=update))

    async def submit(self, request: web.Request) -> web.Response:
        try:
            message: SubmitResults = await self._verified(request, SubmitResults)
        except TransportError as error:
            return web.json_response({"message": error.message}, status=error.status)
        self.submits.append(message)
        await self.changes.happened()
        step = self.submit_script.popleft() if self.submit_script else "work"
        if step == "drop":
            self.assigned = None
        if self.assigned is None:
            text = f"{message.dendrite_hotkey} submitted results while having no task assigned"
            return web.json_response({"message": text}, status=403)
        if step in ("500", "503", "401"):
            return web.json_response({"message": "made to fail"}, status=int(step))
        if step == "reset":
            return reset(request)
        if step == "other":
            self.assigned = TextTask(id=str(uuid.uuid4()), prompt="another task")
        if self.on_call is not None:
            await self.on_call("submitting")
        if step == "lock" or message.task_id != self.assigned.id:
            return self._told(message, Feedback())
        good = verify_result(
            message.signature,
            submit_time=message.submit_time,
            prompt=self.assigned.prompt,
            validator_hotkey=self.hotkey,
            miner_hotkey=message.dendrite_hotkey or "",
        )
        assert good, "a wrong signature costs 600 s"
        answer = self._repeat(message) if step == "repeat" else self._judge(message, step)
        await self.changes.happened()
        if self.on_call is not None:
            await self.on_call("judged")
        if step.endswith("_after"):
            if step == "500_after":
                return web.json_response({"message": "made to fail"}, status=500)
            if step == "slow_after":
                await asyncio.Event().wait()
            return reset(request)
        return answer

    def _repeat(self, message: SubmitResults) -> web.Response:
        """An earlier submission is accepted while this one is validated: zeros with that one's cooldown."""
        self._judge(message, "accept")
        told = Feedback(average_fidelity_score=0.99, generations_within_the_window=1)
        return self._told(message, told)

    def _judge(self, message: SubmitResults, step: str) -> web.Response:
        assert self.assigned is not None
        now, extra, feedback = self.now(), 0.0, Feedback()
        if not message.results:
            outcome = "skipped"
        elif step == "reject":
            outcome, extra = "rejected", self.penalty
        elif step == "unvalidated":
            outcome, feedback = "unvalidated", Feedback(validation_failed=True)
        else:
            assert base64.b64decode(message.results) == SPZ
            outcome, feedback = "accepted", Feedback(task_fidelity_score=0.8, generations_within_the_window=1)
        self.judged.append((self.assigned.id, outcome))
        total = self.cooldown + extra
        self.cooldown_until = int(max(now + total - self.throttle, self.assigned_at + total)) + 1
        self.assigned = None
        return self._told(message, feedback)

    def _told(self, message: SubmitResults, feedback: Feedback) -> web.Response:
        update = {"feedback": feedback, "cooldown_until": self.cooldown_until, "results": "", "signature": ""}
        return self._answer(message.model_copy(update=update))

    def _answer(self, message: PullTask | SubmitResults) -> web.Response:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self.now()))
        values = json.loads(message.model_dump_json())
        self.edit(values)
        return web.Response(
            body=json.dumps(values).encode(), content_type="application/json", headers={"Date": date}
        )

    def outcomes(self) -> list[str]:
        return [outcome for _, outcome in self.judged]


@dataclass
class FakeChain(Server):
    """``GET /snapshot``: who is registered."""

    neurons: list[Neuron] = field(default_factory=list)

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/snapshot", self.snapshot)

    async def snapshot(self, request: web.Request) -> web.Response:
        made = ChainSnapshot(
            netuid=17, block=1, taken_at=time.time(), burn_price=0.5, neurons=tuple(self.neurons)
        )
        return web.Response(body=made.model_dump_json().encode(), content_type="application/json")
