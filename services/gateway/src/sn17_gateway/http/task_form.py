"""``POST /add_task``: what a client asks for, checked in 404's order."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from sn17_contract.gateway import DEFAULT_MODEL, MODELS, AddTaskBody
from sn17_service.bodies import MultipartReader, media_type, whole_body
from sn17_service.pictures import read_picture

from sn17_gateway.http.errors import bad_field, bad_request, mistake
from sn17_gateway.settings import GatewaySettings

MAX_JSON_BYTES: Final = 2 * 1024**2
MAX_PARAMS_BYTES: Final = 1024
_FORM_OVERHEAD: Final = 64 * 1024
_MIN_PROMPT: Final = 3
_PROMPT: Final = re.compile(r"[A-Za-z0-9 .,'():;/?!+%-]+")
_SEED: Final = re.compile(r"[+-]?[0-9]{1,10}")
PART_LIMITS: Final = {"model": 64, "seed": 11, "model_params": MAX_PARAMS_BYTES}


@dataclass(frozen=True, slots=True)
class Wish:
    """Checked but for the model. ``seed`` is an i32, or None for any; ``params`` is JSON text."""

    prompt: str | None
    image: bytes | None
    model: str
    seed: int | None
    params: str | None

    @property
    def digest(self) -> str:
        """The same for the same request, in whichever form it came."""
        image = None if self.image is None else hashlib.sha256(self.image).hexdigest()
        asked = json.dumps([self.prompt, image, self.model, self.seed, self.params])
        return hashlib.sha256(asked.encode()).hexdigest()


async def read_wish(request: Request, settings: GatewaySettings) -> Wish:
    """Raises Refusal."""
    match media_type(request):
        case "application/json":
            wish = await _of_json(request)
        case "multipart/form-data":
            wish = await _of_form(request, settings)
        case "":
            raise bad_request("a content type is needed: application/json or multipart/form-data")
        case _:
            raise bad_request("the content type must be application/json or multipart/form-data")
    _check_input(wish, settings)
    return wish


def check_model(wish: Wish, settings: GatewaySettings) -> None:
    """Raises Refusal for a model that is not on offer or does not take this input."""
    if wish.model not in settings.models:
        raise bad_field("model", f"Unknown model; on offer: {', '.join(settings.models)}")
    if wish.prompt is not None and not MODELS[wish.model].takes_text:
        raise bad_field("model", f"Model '{wish.model}' does not support txt3d input")


def seed_of(number: int) -> int | None:
    """An i32 or u32 as the i32 with the same bits; None for -1, which stands for any."""
    seed = number - 2**32 if number >= 2**31 else number
    return None if seed == -1 else seed


async def _of_json(request: Request) -> Wish:
    body = await whole_body(request, MAX_JSON_BYTES)
    try:
        fields = AddTaskBody.model_validate_json(body)
    except ValidationError as error:
        raise bad_request(mistake(error)) from None
    given = "model_params" in fields.model_fields_set
    return Wish(
        fields.prompt,
        None,
        DEFAULT_MODEL if fields.model is None else fields.model,
        None if fields.seed is None else seed_of(fields.seed),
        _params(fields.model_params) if given else None,
    )


async def _of_form(request: Request, settings: GatewaySettings) -> Wish:
    longest = settings.max_image_bytes + settings.max_prompt_bytes + _FORM_OVERHEAD
    form = MultipartReader(request, longest, "payload too large")
    image: bytes | None = None
    texts: dict[str, str] = {}
    while (name := await form.next_part()) is not None:
        if name == "image":
            image = await form.read(settings.max_image_bytes, name)
        elif name == "prompt":
            texts[name] = await form.text(settings.max_prompt_bytes, name)
        elif name in PART_LIMITS:
            texts[name] = await form.text(PART_LIMITS[name], name)
        else:
            raise bad_request("unknown field; known: prompt, image, model, seed, model_params")
    params = texts.get("model_params")
    return Wish(
        texts.get("prompt"),
        image,
        texts.get("model", DEFAULT_MODEL),
        _seed_text(texts["seed"]) if "seed" in texts else None,
        None if params is None else _params_text(params),
    )


def _check_input(wish: Wish, settings: GatewaySettings) -> None:
    if wish.prompt == "":
        raise bad_request(f"the prompt is too short: at least {_MIN_PROMPT} characters")
    if (wish.prompt is None) == (not wish.image):
        raise bad_request("give either a prompt or an image, not empty")
    if wish.prompt is not None:
        _check_prompt(wish.prompt, settings.max_prompt_bytes)
    if wish.image is not None:
        _check_image(wish.image, settings.max_image_side)


def _check_prompt(prompt: str, limit: int) -> None:
    if len(prompt) < _MIN_PROMPT:
        raise bad_request(f"the prompt is too short: at least {_MIN_PROMPT} characters")
    if len(prompt.encode()) > limit:
        raise bad_request(f"the prompt is too long: at most {limit} bytes")
    if not _PROMPT.fullmatch(prompt):
        raise bad_request("the prompt may hold letters a-z, digits, spaces and . , ' ( ) : ; / ? ! + % -")


def _check_image(image: bytes, side: int) -> None:
    picture = read_picture(image)
    if picture is None:
        raise bad_request("the image is not a PNG, JPEG or WebP")
    if max(picture.width, picture.height) > side:
        raise bad_request(
            f"the image is too large: {picture.width}x{picture.height}, at most {side} pixels a side"
        )


def _seed_text(text: str) -> int | None:
    trimmed = text.strip()
    if not _SEED.fullmatch(trimmed) or not -(2**31) <= int(trimmed) < 2**32:
        raise bad_request("the seed must be an integer of 32 bits")
    return seed_of(int(trimmed))


def _params_text(text: str) -> str:
    try:
        return _params(
            AddTaskBody.model_validate_json(b'{"model_params":' + text.encode() + b"}").model_params
        )
    except ValidationError:
        raise bad_request("model_params must be a JSON object") from None


def _params(value: dict[str, Any]) -> str:
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise bad_request("model_params holds a number that JSON can't carry") from None
    if len(text) > MAX_PARAMS_BYTES:
        raise bad_request(f"model_params may have at most {MAX_PARAMS_BYTES} bytes")
    return text
