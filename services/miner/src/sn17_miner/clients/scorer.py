"""A validation service with the subnet's own interface, asked before a result is handed in."""

from __future__ import annotations

import base64
import json
from typing import Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sn17_miner.clients.web import read_bounded, short, within

_SMALL: Final = 8 << 20
_TEXT: Final = "/validate_txt_to_3d_ply/"
_IMAGE: Final = "/validate_img_to_3d_ply/"


class ScorerError(Exception):
    """No score; the gate goes by the fixer's report alone."""


class _Score(BaseModel):
    model_config = ConfigDict(extra="ignore")

    score: float = Field(allow_inf_nan=False)


class ScorerClient:
    """Asks the service at ``url``."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, timeout: float) -> None:
        self._session = session
        self._url = url
        self._timeout = timeout

    async def score(self, *, kind: str, prompt: str, spz: bytes) -> float:
        """The score a validator with these weights would give, 0 to 1. Raises ScorerError."""
        body = {
            "prompt_image" if kind == "image" else "prompt": prompt,
            "data": base64.b64encode(spz).decode(),
            "compression": 2,
            "generate_single_preview": False,
            "generate_grid_preview": False,
            "preview_score_threshold": 0.5,
        }
        try:
            async with self._session.post(
                self._url + (_IMAGE if kind == "image" else _TEXT),
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
                timeout=within(self._timeout),
                allow_redirects=False,
            ) as response:
                answer = await read_bounded(response, _SMALL)
                if response.status != 200:
                    raise ScorerError(f"the validation service answered {response.status}")
                return min(1.0, max(0.0, _Score.model_validate_json(answer).score))
        except ValidationError as error:
            raise ScorerError("the validation service's answer has no score") from error
        except TimeoutError as error:
            raise ScorerError(f"no score within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ScorerError(short(error)) from error
