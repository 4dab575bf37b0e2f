"""``add_task``, ``get_status`` and ``get_result`` as the original has them, its traps included."""

from __future__ import annotations

import asyncio
import io
import json
import re
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError
from sn17_contract.gateway import DEFAULT_MODEL, HEADER_KEY, MODELS, AddTaskBody, StatusBody, TaskId
from sn17_service.bodies import MultipartReader, media_type, whole_body
from sn17_service.pictures import read_picture
from sn17_splats import SplatError, decode_spz, write_ply

from sn17_devnet.gateway.answers import (
    Body,
    Refusal,
    bad_field,
    coded,
    json_answer,
    mistake,
    parse_uuid,
)
from sn17_devnet.gateway.memory import Memory
from sn17_devnet.gateway.model import ClientKey, Context, Record, State
from sn17_devnet.gateway.shared import Shared

MAX_BODY: Final = 2 * 1024**2
MAX_PROMPT_PART: Final = 384
MAX_PARAMS: Final = 1024
MAX_SIDE: Final = 1024
_FORM_EXTRA: Final = 64 * 1024
_PROMPT: Final = re.compile(r"[A-Za-z0-9 .,'():;/?!+%-]{3,}")
_KEY: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})
_TEXT_PARTS: Final = {"prompt": MAX_PROMPT_PART, "model": 64, "seed": 11, "model_params": MAX_PARAMS}


@dataclass(frozen=True, slots=True)
class Wish:
    """A parsed add_task. ``seed`` is None where the gateway draws one."""

    prompt: str | None
    image: bytes | None
    model: str
    seed: int | None
    params: str | None


class ClientApi:
    """Handlers of one node; each raises Refusal or NoHandler for what it does not take."""

    def __init__(self, shared: Shared, node: int, memory: Callable[[], Memory]) -> None:
        self._shared = shared
        self._node = node
        self._memory = memory

    async def add_task(self, request: web.Request, body: Body) -> web.Response:
        shared, address = self._shared, request.remote or ""
        shared.count(address, shared.limits.add_task)
        key = self._key(request, adding=True)
        wish = await _wish(body)
        _check_input(wish)
        memory = self._memory()
        if len(memory.queue) >= shared.settings.queue_limit:
            raise Refusal(503, "queue is full")
        self._check_model(wish)
        code = shared.database.refusal(key, address)
        if code is not None:
            raise coded(402 if code == "insufficient_balance" else 429, code, "this key can't add more")
        now = shared.clock()
        record = Record(
            id=shared.new_id(),
            node=self._node,
            owner=key.text,
            kind=key.kind,
            address=address,
            slots=shared.settings.slots,
            created_at=now,
            expires_at=now + shared.settings.task_seconds,
        )
        seed = shared.draw_seed() if wish.seed is None else wish.seed
        memory.add(Context(record, wish.model, wish.prompt, wish.image, seed, wish.params, key.tags))
        return json_answer(request, TaskId(id=record.id))

    async def get_status(self, request: web.Request, body: Body) -> web.Response:
        """Nobody is asked for a key."""
        self._shared.count(request.remote or "", self._shared.limits.get_status)
        status = self._memory().status(parse_uuid(request.query.get("id", ""), "id"))
        answer = StatusBody(status=status.text, worker_id=status.worker_id, reason=status.reason)
        return json_answer(request, answer)

    async def get_result(self, request: web.Request, body: Body) -> web.Response:
        """The first success by arrival, as soon as it is there; nothing is judged."""
        key = self._key(request)
        query, memory = request.query, self._memory()
        task = parse_uuid(query.get("id", ""), "id")
        every = query.get("all", "false")
        if every not in ("true", "false"):
            raise Refusal(400, "deserialize error: all must be true or false")
        record, kept = self._shared.database.records.get(task), memory.kept.get(task)
        if record is None or record.owner != key.text or kept is None:
            raise Refusal(404, "Result not found")
        if not kept.assets:
            status = memory.status(task)
            failed = status.text == State.FAILURE
            raise Refusal(404, f"Task failed: {status.reason}" if failed else "Result not found")
        splat = MODELS[memory.model_of(task)].splat
        as_ply = splat and not _compressed(query.get("compress"), query.get("format"))
        suffix = "glb" if not splat else "ply" if as_ply else "spz"
        if every == "true":
            return await self._all(request, kept.assets, as_ply, suffix)
        asset = kept.assets[0]
        if as_ply:
            try:
                asset = await asyncio.to_thread(_ply, asset)
            except SplatError:
                raise Refusal(500, "Internal Server Error") from None
        media = "application/octet-stream" if splat else "model/gltf-binary"
        return web.Response(
            body=asset,
            content_type=media,
            headers={"content-disposition": f'attachment; filename="result.{suffix}"'},
        )

    async def _all(
        self, request: web.Request, assets: list[bytes], as_ply: bool, suffix: str
    ) -> web.Response:
        """Chunked; with an asset that can't be converted, 200 and nothing in it."""
        try:
            content = await asyncio.to_thread(_zip, assets, as_ply, suffix)
        except SplatError:
            content = b""
        answer = web.Response(
            body=content,
            content_type="application/zip",
            headers={"content-disposition": 'attachment; filename="results.zip"'},
        )
        answer.enable_chunked_encoding()
        return answer

    def _key(self, request: web.Request, *, adding: bool = False) -> ClientKey:
        """Whose key it is. Raises Refusal."""
        text, shared, address = request.headers.get(HEADER_KEY), self._shared, request.remote or ""
        well_formed = text is not None and _KEY.fullmatch(text) is not None
        known = shared.keys.get(text) if text is not None else None
        if text is not None and well_formed:
            if uuid.UUID(text) == uuid.UUID(shared.settings.generic_key.get_secret_value()):
                return shared.guests
            if known is not None:
                return known
        if adding and shared.limits.unauthorized.exceeded(address):
            raise coded(429, "unauthorized_daily_limit", "too many calls without a valid key")
        if text is None:
            raise Refusal(401, "Missing API key")
        if not well_formed:
            raise Refusal(400, "the API key is malformed")
        if shared.limits.guesses.blocked(address):
            raise coded(429, "invalid_api_key_rate_limit", "too many unknown keys")
        shared.limits.guesses.missed(address)
        raise Refusal(401, "Unknown API key")

    def _check_model(self, wish: Wish) -> None:
        if wish.model not in self._shared.settings.models:
            raise bad_field("model", "unknown model")
        if wish.prompt is not None and not MODELS[wish.model].takes_text:
            raise bad_field("model", f"Model '{wish.model}' does not support txt3d input")


async def _wish(body: Body) -> Wish:
    match media_type(body.request):
        case "application/json":
            return await _of_json(body)
        case "multipart/form-data":
            return await _of_form(body)
        case _:
            raise Refusal(400, "the content type must be application/json or multipart/form-data")


async def _of_json(body: Body) -> Wish:
    """No limit on the prompt but the body's."""
    try:
        fields = AddTaskBody.model_validate_json(await whole_body(body.request, MAX_BODY))
    except ValidationError as error:
        raise mistake(error) from None
    given = "model_params" in fields.model_fields_set
    return Wish(
        fields.prompt,
        None,
        DEFAULT_MODEL if fields.model is None else fields.model,
        None if fields.seed is None else _seed(fields.seed),
        _params(fields.model_params) if given else None,
    )


async def _of_form(body: Body) -> Wish:
    """The last of duplicates counts; any other part is refused."""
    form = MultipartReader(body.request, MAX_BODY + _FORM_EXTRA, "payload too large")
    image: bytes | None = None
    texts: dict[str, str] = {}
    while (name := await form.next_part()) is not None:
        if name == "image":
            image = await form.read(MAX_BODY, name)
        elif name in _TEXT_PARTS:
            texts[name] = await form.text(_TEXT_PARTS[name], name)
        else:
            raise Refusal(400, "unknown part")
    seed = texts.get("seed", "").strip()
    if "seed" in texts and not re.fullmatch(r"[+-]?[0-9]{1,10}", seed):
        raise Refusal(400, "the seed is no integer")
    return Wish(
        texts.get("prompt"),
        image,
        texts.get("model", DEFAULT_MODEL),
        _seed(int(seed)) if seed else None,
        _params(_loaded(texts["model_params"])) if "model_params" in texts else None,
    )


def _seed(number: int) -> int | None:
    """i32, or u32 with its bits kept; -1 stands for any."""
    if not -(2**31) <= number < 2**32:
        raise Refusal(400, "the seed has more than 32 bits")
    number = number - 2**32 if number >= 2**31 else number
    return None if number == -1 else number


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise Refusal(400, "model_params is no JSON") from None


def _params(value: Any) -> str:
    if not isinstance(value, dict):
        raise Refusal(400, "model_params must be an object")
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > MAX_PARAMS:
        raise Refusal(400, "model_params is too long")
    return text


def _check_input(wish: Wish) -> None:
    if wish.prompt == "":
        raise Refusal(400, "the prompt is too short")
    if (wish.prompt is None) == (not wish.image):
        raise Refusal(400, "give a prompt or an image")
    if wish.prompt is not None and not _PROMPT.fullmatch(wish.prompt):
        raise Refusal(400, "the prompt is too short or has characters that are not allowed")
    if wish.image is not None:
        picture = read_picture(wish.image)
        if picture is None or max(picture.width, picture.height) > MAX_SIDE:
            raise Refusal(400, "the image must be PNG, JPEG or WebP of at most 1024 pixels a side")


def _compressed(compress: str | None, legacy: str | None) -> bool:
    if legacy is not None and legacy.lower() in ("ply", "spz"):
        return legacy.lower() == "spz"
    if compress is None:
        return True
    word = compress.strip().lower()
    if word not in _YES | _NO:
        raise Refusal(400, "compress is no truth value")
    return word in _YES


def _ply(asset: bytes) -> bytes:
    return write_ply(decode_spz(asset), normals=False)


def _zip(assets: list[bytes], as_ply: bool, suffix: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for number, asset in enumerate(assets, 1):
            archive.writestr(f"{number}.{suffix}", _ply(asset) if as_ply else asset)
    return target.getvalue()
