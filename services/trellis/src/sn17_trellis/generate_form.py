"""The generation form: prompt or picture, seed, wishes. Everything is checked before any work starts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sn17_contract.http import Code
from sn17_contract.metrics import GenerationKind
from sn17_service import Problem, unknown_name
from sn17_service.pictures import read_picture
from starlette.datastructures import FormData, UploadFile

from sn17_trellis.backend import Job, Sampling
from sn17_trellis.engine.config import MAX_GUIDANCE, MAX_REQUEST_STEPS, Lane
from sn17_trellis.settings import WorkerSettings

FORM_OVERHEAD_BYTES: Final = 256 * 1024
MAX_FIELDS: Final = 16
FORM_TYPES: Final = ("multipart/form-data", "application/x-www-form-urlencoded")


class GenerateForm(BaseModel):
    """Fields of ``POST /generate``; one of ``prompt`` and ``prompt_image_file`` is needed."""

    model_config = ConfigDict(extra="forbid")

    prompt: str | None = Field(None, description="text prompt")
    seed: int = Field(-1, ge=-1, le=2**32 - 1, description="-1 = random")
    preset: str | None = Field(None, pattern=r"^[a-z0-9_-]{1,32}$", description="a preset of the backend")
    structure_steps: int | None = Field(None, ge=1, le=MAX_REQUEST_STEPS)
    structure_guidance: float | None = Field(None, ge=0, le=MAX_GUIDANCE)
    latent_steps: int | None = Field(None, ge=1, le=MAX_REQUEST_STEPS)
    latent_guidance: float | None = Field(None, ge=0, le=MAX_GUIDANCE)
    lane: Lane | None = Field(None, description="fast: leave out what the checkpoint's calibration allows")


KNOWN_FIELDS: Final = (*GenerateForm.model_fields, "prompt_image_file")


@dataclass(frozen=True, slots=True, eq=False)
class CheckedRequest:
    """A checked request; ``asked_seed`` is -1 where any seed will do."""

    job: Job
    asked_seed: int


async def read_form(request: Request, settings: WorkerSettings) -> tuple[GenerateForm, bytes | None]:
    """Fields and picture bytes.

    Raises:
        Problem: not a form, an unknown, doubled or invalid field, a picture that is too large.
    """
    if request.query_params:
        names = ", ".join(name[:64] for name in list(request.query_params)[:MAX_FIELDS])
        raise Problem(
            Code.BAD_REQUEST, f"{names}: not taken from the address; send it as a field of the form"
        )
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in FORM_TYPES:
        raise Problem(Code.BAD_REQUEST, f"send a form: {' or '.join(FORM_TYPES)}", status=415)
    form = await request.form(
        max_files=1, max_fields=MAX_FIELDS, max_part_size=4 * settings.max_prompt_characters + 1024
    )
    try:
        return _fields(form, settings), await _picture(form, settings)
    finally:
        await form.close()


def job_of(form: GenerateForm, picture: bytes | None, settings: WorkerSettings) -> CheckedRequest:
    """The job that a form asks for; its picture is not decoded yet.

    Raises:
        Problem: prompt and picture both or neither, or a file that is no picture or too large.
    """
    sampling = Sampling(
        form.preset,
        form.structure_steps,
        form.structure_guidance,
        form.latent_steps,
        form.latent_guidance,
        form.lane,
    )
    seed = form.seed if form.seed >= 0 else secrets.randbelow(2**31)
    if picture is not None:
        if form.prompt:
            raise Problem(Code.BAD_REQUEST, "send either prompt or prompt_image_file, not both")
        check_picture(picture, settings.max_image_pixels)
        return CheckedRequest(Job(GenerationKind.TASK, seed, picture=picture, sampling=sampling), form.seed)
    prompt = (form.prompt or "").strip()
    if not prompt:
        raise Problem(Code.BAD_PROMPT, "send a prompt (text) or a prompt_image_file")
    if len(prompt) > settings.max_prompt_characters:
        raise Problem(
            Code.BAD_PROMPT,
            f"the prompt has {len(prompt)} characters; at most {settings.max_prompt_characters} are taken",
        )
    if "\0" in prompt:
        raise Problem(Code.BAD_PROMPT, "the prompt holds a NUL character")
    return CheckedRequest(Job(GenerationKind.TASK, seed, prompt=prompt, sampling=sampling), form.seed)


def check_picture(data: bytes, max_pixels: int) -> None:
    """Kind and size by the file's head; whether the rest is whole shows when the model process decodes it.

    Raises:
        Problem: not a PNG, JPEG or WebP file, or too many pixels.
    """
    found = read_picture(data)
    if found is None:
        raise Problem(Code.BAD_IMAGE, _what_is_wrong(data, max_pixels))
    if found.width * found.height > max_pixels:
        raise Problem(
            Code.BAD_IMAGE,
            f"the image has {found.width} x {found.height} pixels; at most {max_pixels} are taken",
        )


def _what_is_wrong(data: bytes, max_pixels: int) -> str:
    # The decoder comes with Pillow, which the service loads for a refusal only.
    from sn17_pictures import PictureError, decode_picture

    try:
        decode_picture(data, max_pixels)
    except PictureError as error:
        return str(error)
    return "the image's head is not that of a PNG, JPEG or WebP file; export it again"


def _fields(form: FormData, settings: WorkerSettings) -> GenerateForm:
    values: dict[str, str] = {}
    for name, value in form.multi_items():
        if name == "prompt_image_file":
            continue
        if not isinstance(value, str):
            raise Problem(Code.BAD_REQUEST, f"{name[:64]}: a file is taken as prompt_image_file only")
        if name in values:
            raise Problem(Code.BAD_REQUEST, f"{name[:64]} is given twice")
        if name not in GenerateForm.model_fields:
            raise Problem(Code.BAD_REQUEST, unknown_name(name, KNOWN_FIELDS))
        values[name] = value
    try:
        # A browser sends every field of its page; a blank one was left out by its user.
        return GenerateForm.model_validate({name: value for name, value in values.items() if value.strip()})
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(str(p)[:64] for p in item['loc'])}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise Problem(Code.BAD_REQUEST, mistakes) from None


async def _picture(form: FormData, settings: WorkerSettings) -> bytes | None:
    parts = form.getlist("prompt_image_file")
    if not parts:
        return None
    if len(parts) > 1:
        raise Problem(Code.BAD_REQUEST, "prompt_image_file is given twice")
    part = parts[0]
    if not isinstance(part, UploadFile):
        if not part.strip():
            return None
        raise Problem(Code.BAD_IMAGE, "prompt_image_file must be a file part")
    data = await part.read(settings.max_image_bytes + 1)
    if not data and not part.filename:
        return None
    if len(data) > settings.max_image_bytes:
        raise Problem(Code.TOO_LARGE, f"the image may have at most {settings.max_image_bytes} bytes")
    return data
