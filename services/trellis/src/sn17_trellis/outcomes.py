"""What a failed generation is answered with and counted as."""

from __future__ import annotations

import logging
from typing import Final

from sn17_contract.http import Code
from sn17_contract.metrics import GenerationOutcome
from sn17_service import Problem

from sn17_trellis.backend import Cancelled, DeviceError, GenerationError, UnusableOutput

log = logging.getLogger("sn17.trellis")

_OUTCOME: Final = {
    Code.EMPTY_STRUCTURE: GenerationOutcome.EMPTY_STRUCTURE,
    Code.STRUCTURE_TOO_LARGE: GenerationOutcome.STRUCTURE_TOO_LARGE,
    Code.GPU_OUT_OF_MEMORY: GenerationOutcome.GPU_OUT_OF_MEMORY,
    Code.BAD_PROMPT: GenerationOutcome.BAD_REQUEST,
    Code.BAD_IMAGE: GenerationOutcome.BAD_REQUEST,
    Code.BAD_REQUEST: GenerationOutcome.BAD_REQUEST,
    Code.MEMORY_REFUSED: GenerationOutcome.MEMORY_REFUSED,
    Code.JOB_KILLED_MODEL: GenerationOutcome.JOB_KILLED_MODEL,
}


def failure(error: Exception) -> tuple[Problem, GenerationOutcome]:
    """The answer to ``error`` and its outcome; what nobody foresaw goes to the log with its traceback."""
    match error:
        case Cancelled():
            return Problem(Code.CONFLICT, "the job was cancelled"), GenerationOutcome.CANCELLED
        case DeviceError():
            detail = f"the device failed ({error.kind}); use another worker"
            return Problem(Code.DEGRADED, detail), GenerationOutcome.DEVICE_ERROR
        case UnusableOutput():
            detail = f"the output was unusable: {error}; use another worker"
            return Problem(Code.DEGRADED, detail), GenerationOutcome.UNUSABLE
        case MemoryError():
            detail = "no memory for this job; use another worker"
            return Problem(Code.MEMORY_REFUSED, detail), GenerationOutcome.MEMORY_REFUSED
        case Problem():
            return error, _OUTCOME.get(error.code, GenerationOutcome.FAILED)
        case GenerationError():
            return Problem(error.code, str(error)), _OUTCOME.get(error.code, GenerationOutcome.FAILED)
    log.error("the generation failed", exc_info=error)
    detail = "the generation failed; the worker's log has the reason"
    return Problem(Code.INTERNAL, detail), GenerationOutcome.FAILED
