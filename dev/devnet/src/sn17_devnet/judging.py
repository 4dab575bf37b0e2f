"""The validation service: scores, never fails. Whatever goes wrong with a submission is a score of 0."""

from __future__ import annotations

import base64
import binascii
import logging

from sn17_protocol import ImageTask
from sn17_scene import PromptError

from sn17_devnet.picture import PictureError
from sn17_devnet.scorer import Score, score_image, score_text
from sn17_devnet.tasks import SceneTask
from sn17_devnet.validator_state import Verdict

log = logging.getLogger("sn17.devnet.scorer")


def judge(scene_task: SceneTask, results: str, strictness: float = 1.0, *, detail: bool = False) -> Verdict:
    """The verdict on the ``results`` of a submission."""
    task = scene_task.task
    if isinstance(task, ImageTask):
        score = judge_image(task.prompt, results, strictness=strictness)
    else:
        score = judge_text(task.prompt, results, strictness=strictness, detail=detail)
    return Verdict(score.value, reason=score.reason)


def judge_text(
    prompt: str, results: str, *, compression: int = 2, strictness: float = 1.0, detail: bool = False
) -> Score:
    """Score a result for a sentence; one outside the grammar shows nothing this service knows."""
    try:
        return score_text(results, prompt, compression=compression, strictness=strictness, detail=detail)
    except PromptError as error:
        return Score(0.0, reason=f"prompt: {error}")
    except Exception:
        log.exception("scoring failed")
        return Score(0.0, reason="scoring failed")


def judge_image(prompt: str, results: str, *, compression: int = 2, strictness: float = 1.0) -> Score:
    """Score a result for a picture (base64 of an image file)."""
    try:
        picture = base64.b64decode(prompt, validate=True)
        return score_image(results, picture, compression=compression, strictness=strictness)
    except (PictureError, binascii.Error, ValueError) as error:
        return Score(0.0, reason=f"picture: {error}")
    except Exception:
        log.exception("scoring failed")
        return Score(0.0, reason="scoring failed")
