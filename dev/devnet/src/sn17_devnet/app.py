"""The data port: chain snapshot, the referee's ledger, faults, registrations, and the validation service."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field
from sn17_contract.http import Code
from sn17_contract.local_network import NetworkLedger
from sn17_protocol import ChainSnapshot
from sn17_service import Problem, Service

from sn17_devnet.faults import FaultRule
from sn17_devnet.judging import judge_image, judge_text
from sn17_devnet.network import Network
from sn17_devnet.scorer import Score

MAX_PROMPT = 1024
MAX_DATA = 500 * 1024 * 1024


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: str = Field(max_length=MAX_DATA)
    compression: int = 0
    generate_single_preview: bool = False
    generate_grid_preview: bool = False
    preview_score_threshold: float = 0.8


class TextValidation(_Request):
    """A result for a sentence; ``compression`` 2 is the subnet's SPZ, 0 a plain PLY."""

    prompt: str = Field(max_length=MAX_PROMPT)


class ImageValidation(_Request):
    """A result for a picture."""

    prompt_image: str


class ValidationAnswer(BaseModel):
    """The real service's fields. No previews here, and no neural metrics: ``alignment_score`` is the
    likeness to the scene, ``iqa`` the score's remaining factors."""

    score: float
    iqa: float = 0.0
    alignment_score: float = 0.0
    ssim: float = 0.0
    lpips: float = 0.0
    preview: str | None = None
    grid_preview: str | None = None
    reason: str = ""

    @classmethod
    def of(cls, score: Score) -> ValidationAnswer:
        return cls(
            score=score.value,
            iqa=score.opacity * score.placement,
            alignment_score=score.shape * score.colour,
            reason=score.reason,
        )


class Registration(BaseModel):
    """A hotkey to register, in place of another if asked."""

    model_config = ConfigDict(extra="forbid")

    hotkey: str = Field(max_length=64)
    replace: str | None = Field(None, max_length=64)


class Restart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(1.0, ge=0, le=3600)


def build_app(service: Service, network: Network) -> FastAPI:
    """The data application."""
    app = service.new_app("sn17 local network", network.settings.max_body_bytes)
    strictness = network.settings.strictness

    @app.get("/snapshot")
    async def snapshot() -> ChainSnapshot:
        return network.snapshot()

    @app.get("/ledger")
    async def whole_ledger(validator: Annotated[int | None, Query(ge=0)] = None) -> NetworkLedger:
        whole = network.whole_ledger()
        if validator is None:
            return whole
        return whole.model_copy(update={"validators": whole.validators[validator : validator + 1]})

    @app.get("/faults")
    async def faults() -> list[FaultRule]:
        return list(network.faults)

    @app.put("/faults")
    async def set_faults(rules: list[FaultRule]) -> list[FaultRule]:
        network.set_faults(rules)
        return list(network.faults)

    @app.post("/validators/{index}/restart", status_code=202)
    async def restart(index: int, body: Restart) -> dict[str, str]:
        if not 0 <= index < len(network.validators):
            raise Problem(Code.NOT_FOUND, f"there are validators 0 to {len(network.validators) - 1}")
        network.restart(index, body.seconds)
        return {"hotkey": network.validators[index].hotkey}

    @app.post("/miners", status_code=201)
    async def register(body: Registration) -> dict[str, int]:
        try:
            return {"uid": network.register(body.hotkey, body.replace)}
        except ValueError as error:
            raise Problem(Code.CONFLICT, str(error)) from error

    @app.delete("/miners/{hotkey}", status_code=204)
    async def deregister(hotkey: str) -> None:
        try:
            network.deregister(hotkey)
        except ValueError as error:
            raise Problem(Code.NOT_FOUND, str(error)) from error

    @app.post("/validate_txt_to_3d_ply/")
    async def validate_text(body: TextValidation) -> ValidationAnswer:
        return ValidationAnswer.of(
            await network.on_scorer(
                lambda: judge_text(
                    body.prompt, body.data, compression=body.compression, strictness=strictness
                )
            )
        )

    @app.post("/validate_img_to_3d_ply/")
    async def validate_image(body: ImageValidation) -> ValidationAnswer:
        return ValidationAnswer.of(
            await network.on_scorer(
                lambda: judge_image(
                    body.prompt_image, body.data, compression=body.compression, strictness=strictness
                )
            )
        )

    return app
