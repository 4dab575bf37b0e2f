"""``get_tasks`` and ``add_result`` as the original has them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Final

from aiohttp import web
from pydantic import ValidationError
from sn17_contract.gateway import GONE, GetTasksBody, Offers, TaskOffer
from sn17_protocol.gateway import check_signature, timestamp_seconds, valid_hotkey
from sn17_service.bodies import MultipartReader, media_type, whole_body

from sn17_devnet.gateway.answers import (
    Body,
    Refusal,
    bad_field,
    coded,
    json_answer,
    mistake,
    parse_uuid,
    text_answer,
)
from sn17_devnet.gateway.memory import Memory, Refused
from sn17_devnet.gateway.model import Context, Delivery
from sn17_devnet.gateway.shared import Shared

MAX_PULL_BODY: Final = 4096
MAX_REASON: Final = 255
_TAG: Final = re.compile(r"[a-z0-9_-]{1,32}")
_HEAD: Final = ("id", "signature", "timestamp", "worker_hotkey", "worker_id", "status")
_PARTS: Final = dict.fromkeys((*_HEAD, "assignment_token"), 1024) | {"reason": MAX_REASON}


class WorkerApi:
    """Handlers of one node; each raises Refusal or NoHandler for what it does not take."""

    def __init__(self, shared: Shared, memory: Callable[[], Memory]) -> None:
        self._shared = shared
        self._memory = memory
        self._settings = shared.settings

    async def get_tasks(self, request: web.Request, body: Body) -> web.Response:
        """An empty list comes at once."""
        if media_type(body.request) != "application/json":
            raise Refusal(400, "the content type must be application/json")
        try:
            asked = GetTasksBody.model_validate_json(await whole_body(body.request, MAX_PULL_BODY))
        except ValidationError as error:
            raise mistake(error) from None
        self._check_worker(asked.worker_hotkey, asked.signature, asked.timestamp)
        models = [asked.model] if isinstance(asked.model, str) else asked.model
        if not models or any(model not in self._settings.models for model in models):
            raise bad_field("model", "name models that are on offer")
        tags = frozenset(tag.strip().lower() for tag in asked.worker_tags)
        if not all(_TAG.fullmatch(tag) for tag in tags):
            raise bad_field("worker_tags", "a tag has 1 to 32 of a-z, 0-9, _ and -")
        count = min(asked.requested_task_count, max(self._settings.queue_limit, 1))
        given = self._memory().pull(asked.worker_hotkey, asked.worker_id, tags, models, count)
        offers = [_offer(context, delivery) for context, delivery in given]
        return json_answer(request, Offers(tasks=offers, gateways=self._shared.infos()))

    async def add_result(self, request: web.Request, body: Body) -> web.Response:
        """The worker is checked when the asset begins; its content is not."""
        self._shared.count(request.remote or "", self._shared.limits.results)
        limit = self._settings.max_asset_bytes
        form = MultipartReader(body.request, limit, "stream size exceeded limit")
        fields: dict[str, str] = {}
        asset: bytes | None = None
        while (name := await form.next_part()) is not None:
            known = "worker_hotkey" if name == "validator_hotkey" else name
            if known in fields or (name == "asset" and asset is not None):
                raise Refusal(400, f"{known} is there twice")
            if name == "asset":
                if self._checked(fields) != "success":
                    raise Refusal(400, "a failure has no asset")
                self._find(fields)
                asset = await form.read(limit, name)
            elif known in _PARTS:
                fields[known] = await form.text(_PARTS[known], name)
            else:
                raise Refusal(400, "unknown part")
        if asset is None:
            if self._checked(fields) == "success":
                raise Refusal(400, "a success needs an asset")
            if "reason" not in fields:
                raise Refusal(400, "a failure needs a reason")
        delivery = self._find(fields)
        reason = None if asset is not None else fields["reason"]
        self._memory().finish(parse_uuid(fields["id"], "id"), delivery, asset, reason)
        return text_answer("Ok")

    def _checked(self, fields: dict[str, str]) -> str:
        """The status of a result whose required parts are there and whose worker has signed."""
        for name in _HEAD:
            if name not in fields:
                raise Refusal(400, f"{name} must come before the asset")
        if fields["status"] not in ("success", "failure"):
            raise Refusal(400, "status must be success or failure")
        parse_uuid(fields["id"], "id")
        self._check_worker(fields["worker_hotkey"], fields["signature"], fields["timestamp"])
        return fields["status"]

    def _find(self, fields: dict[str, str]) -> Delivery:
        token = fields.get("assignment_token")
        token = None if token is None else parse_uuid(token, "assignment_token")
        task = parse_uuid(fields["id"], "id")
        found = self._memory().find(task, fields["worker_hotkey"], fields["worker_id"], token)
        if found is Refused.GONE:
            raise coded(410, GONE, "the task is unknown, complete or over")
        if found is Refused.NOT_ASSIGNED:
            raise Refusal(401, "the task is not assigned to this worker")
        return found

    def _check_worker(self, hotkey: str, signature: str, timestamp: str) -> None:
        """In the original's order: address, list, timestamp, signature."""
        if not valid_hotkey(hotkey):
            raise Refusal(400, "the hotkey is no SS58 address of prefix 42")
        if self._settings.worker_hotkeys and hotkey not in self._settings.worker_hotkeys:
            raise Refusal(401, "the hotkey is not on the list")
        if timestamp_seconds(timestamp) is None:
            raise Refusal(400, "Invalid timestamp format")
        bad = check_signature(hotkey, signature, timestamp, self._shared.clock())
        if bad is not None:
            raise Refusal(401, bad.value)


def _offer(context: Context, delivery: Delivery) -> TaskOffer:
    return TaskOffer(
        id=context.record.id,
        prompt=context.prompt,
        image=None if context.image is None else base64.b64encode(context.image).decode(),
        model=context.model,
        seed=context.seed,
        model_params=None if context.params is None else json.loads(context.params),
        assignment_token=delivery.token,
    )
