"""What workers call: ``get_tasks``, ``add_result``, and who the nodes are."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator, Sequence

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError
from sn17_contract.gateway import GONE, MODELS, GatewayInfo, GetTasksBody, Leader, Load, Offers, TaskOffer
from sn17_contract.metrics import GatewayOutcome
from sn17_protocol.gateway import valid_hotkey
from sn17_service.bodies import MultipartReader, media_type, whole_body
from sn17_splats import Limits

from sn17_gateway.assets import BadAsset, check_asset
from sn17_gateway.core.model import Asset, Delivery, Task, Worker
from sn17_gateway.core.tasks import Refused
from sn17_gateway.gateway import Gateway
from sn17_gateway.http.errors import Refusal, bad_field, bad_request, json_answer, mistake
from sn17_gateway.http.guard import Guard
from sn17_gateway.http.result_form import ResultForm, ResultHead
from sn17_gateway.keys import BadTag, clean_tags
from sn17_gateway.storage.folder import Upload

MAX_BODY_BYTES = 4096


class WorkerApi:
    """Handlers; each raises Refusal for what it does not take."""

    def __init__(self, gateway: Gateway, guard: Guard) -> None:
        self._gateway = gateway
        self._guard = guard
        self._settings = gateway.settings
        self._limits = Limits(gateway.settings.max_asset_bytes, gateway.settings.max_gaussians)
        self._coming: set[tuple[str, str, str]] = set()

    async def get_tasks(self, request: Request) -> Response:
        """Hand out tasks; each must come back within its lease, or others are asked."""
        self._guard.count(request, self._guard.get_tasks)
        body = await self._pull_body(request)
        if not valid_hotkey(body.worker_hotkey):
            raise bad_request("worker_hotkey must be an SS58 address of prefix 42")
        self._guard.worker(body.worker_hotkey, body.signature, body.timestamp)
        models = [body.model] if isinstance(body.model, str) else body.model
        if not models or any(model not in self._settings.models for model in models):
            raise bad_field("model", f"name one or more of: {', '.join(self._settings.models)}")
        try:
            worker = Worker(body.worker_hotkey, body.worker_id, clean_tags(body.worker_tags))
        except BadTag as error:
            raise bad_field("worker_tags", str(error)) from None
        gateway, now = self._gateway, self._gateway.clock()
        count = min(body.requested_task_count, self._settings.max_pull)
        given: Sequence[tuple[Task, Delivery]] = ()
        if count and gateway.service.drain.current is None:
            given = await gateway.store.claim(worker, models, count, now, self._settings.lease_seconds)
        offers = [await self._offer(task, delivery) for task, delivery in given]
        if given:
            gateway.last_pull = now
            gateway.metrics.deliveries.inc(len(given))
            for task, delivery in given:
                self._note_delivery(task, delivery)
        answer = Offers(tasks=[offer for offer in offers if offer is not None], gateways=[self._node()])
        return json_answer(answer)

    async def add_result(self, request: Request) -> Response:
        """Take in a result. Whose it is is checked before an asset is read."""
        self._guard.count(request, self._guard.results)
        limit = self._settings.max_asset_bytes
        form = ResultForm(MultipartReader(request, limit, f"stream size exceeded limit of {limit} bytes"))
        if not await form.advance():
            head = form.head()
            if head.success:
                raise bad_request("a success needs an asset")
            reason = form.reason
            self._guard.worker(head.hotkey, head.signature, head.timestamp)
            with self._submission(head):
                await self._finish(head, form.token, reason, GatewayOutcome.FAILURE)
            return PlainTextResponse("Ok")
        head = form.head()
        self._guard.worker(head.hotkey, head.signature, head.timestamp)
        with self._submission(head):
            worker = Worker(head.hotkey, head.worker_id)
            found = await self._gateway.store.find(head.task_id, worker, form.token, self._gateway.clock())
            if isinstance(found, Refused):
                raise _refusal(found)
            await self._take_in(head, form, found.token)
        return PlainTextResponse("Ok")

    async def get_load(self, request: Request) -> Response:
        """The nodes; tasks of several replicas are one queue, so there is one."""
        self._guard.count(request, self._guard.results)
        return json_answer(Load(gateways=[self._node()]))

    async def get_leader(self, request: Request) -> Response:
        """The same node; the leader has no meaning for workers."""
        self._guard.count(request, self._guard.results)
        node = self._node()
        leader = Leader(leader_id=node.node_id, domain=node.domain, ip=node.ip, http_port=node.http_port)
        return json_answer(leader)

    async def node_id(self, request: Request) -> Response:
        """The node's number as text."""
        self._guard.count(request, self._guard.get_status)
        return PlainTextResponse(str(self._settings.node_id))

    async def _pull_body(self, request: Request) -> GetTasksBody:
        if media_type(request) != "application/json":
            raise bad_request("the content type must be application/json")
        try:
            return GetTasksBody.model_validate_json(await whole_body(request, MAX_BODY_BYTES))
        except ValidationError as error:
            raise bad_request(mistake(error)) from None

    async def _offer(self, task: Task, delivery: Delivery) -> TaskOffer | None:
        image = None
        if task.image is not None:
            try:
                content = await asyncio.to_thread(self._gateway.folder.read, task.image)
            except FileNotFoundError:
                self._gateway.service.log.error("the picture of a task is missing", extra={"task": task.id})
                return None
            image = base64.b64encode(content).decode()
        return TaskOffer(
            id=task.id, prompt=task.prompt, image=image, model=task.model, seed=task.seed,
            model_params=None if task.params is None else json.loads(task.params),
            assignment_token=delivery.token,
        )  # fmt: skip

    def _note_delivery(self, task: Task, delivery: Delivery) -> None:
        gateway = self._gateway
        before = len(task.deliveries) - 1
        if before == 0:
            gateway.metrics.wait.observe(delivery.given_at - task.created_at)
        if before >= task.slots:
            gateway.metrics.returned.inc()
        about = {"task": task.id, "hotkey": delivery.hotkey[:8], "again": before}
        gateway.service.log.info("task handed out", extra=about)

    @contextlib.contextmanager
    def _submission(self, head: ResultHead) -> Iterator[None]:
        """At most ``max_uploads`` at once, and one for each worker and task."""
        submission = (head.task_id, head.hotkey, head.worker_id)
        if submission in self._coming:
            raise Refusal(503, "this result is being taken in already", retry_after=1)
        if len(self._coming) >= self._settings.max_uploads:
            raise Refusal(503, "too many results are being taken in", retry_after=1)
        self._coming.add(submission)
        try:
            yield
        finally:
            self._coming.discard(submission)

    async def _take_in(self, head: ResultHead, form: ResultForm, token: str) -> None:
        """Read the asset into a file, check it, and keep it."""
        folder = self._gateway.folder
        upload = await asyncio.to_thread(folder.upload, f"{token}-{self._gateway.new_id()}.result")
        try:
            async for piece in form.form.chunks():
                await asyncio.to_thread(upload.write, piece)
            if await form.advance():
                raise bad_request("asset was given twice")
            wrong = await self._check(head.task_id, upload)
            if wrong is not None:
                await self._finish(head, form.token, f"result refused: {wrong}"[:255], GatewayOutcome.REFUSED)
                return
            asset = await asyncio.to_thread(upload.keep)
        finally:
            await asyncio.to_thread(upload.close)
        try:
            await self._finish(head, form.token, asset, GatewayOutcome.SUCCESS)
        except Refusal:
            await asyncio.to_thread(folder.remove, [asset.file])
            raise

    async def _check(self, task_id: str, upload: Upload) -> str | None:
        """What is wrong with the asset, or None."""
        task = await self._gateway.store.get(task_id)
        if not self._settings.check_assets or task is None:
            return None
        await asyncio.to_thread(upload.flush)
        try:
            await self._gateway.decode(check_asset, upload.path, MODELS[task.model], self._limits)
        except BadAsset as error:
            return str(error)
        return None

    async def _finish(
        self, head: ResultHead, token: str | None, result: Asset | str, outcome: GatewayOutcome
    ) -> None:
        gateway, now = self._gateway, self._gateway.clock()
        worker = Worker(head.hotkey, head.worker_id)
        found = await gateway.store.finish(head.task_id, worker, token, result, now)
        if isinstance(found, Refused):
            raise _refusal(found)
        seconds = now - found.given_at
        gateway.metrics.results.labels(outcome.value).inc()
        if outcome is GatewayOutcome.SUCCESS:
            gateway.metrics.generation.observe(seconds)
        about = {"task": head.task_id, "hotkey": head.hotkey[:8], "outcome": outcome.value}
        more = {"reason": found.reason, "seconds": round(seconds, 3)}
        gateway.service.log.info("result taken in", extra={**about, **more})

    def _node(self) -> GatewayInfo:
        settings, gateway = self._settings, self._gateway
        snapshot = gateway.snapshot
        return GatewayInfo(
            node_id=settings.node_id, name=settings.node_name,
            domain=settings.node_domain, ip=settings.node_ip,
            http_port=settings.node_port or gateway.service.port or settings.port,
            available_tasks=0 if snapshot is None else snapshot.waiting,
            last_task_acquisition=int(gateway.last_pull), last_update=int(gateway.read_at),
        )  # fmt: skip


def _refusal(refused: Refused) -> Refusal:
    if refused is Refused.NOT_ASSIGNED:
        return Refusal(401, "this task is not assigned to this worker, or it has answered already")
    return Refusal(410, {"error": GONE, "message": "The task is unknown, complete or over; drop the result"})
