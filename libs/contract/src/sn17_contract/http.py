"""Ports, headers, media types and codes of the HTTP interfaces."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

TRELLIS_PORT: Final = 10006
FIXER_PORT: Final = 8080
OPS_PORT: Final = 9090
HEADER_SEED: Final = "SN17-Seed"
HEADER_GAUSSIANS: Final = "SN17-Gaussians"
HEADER_LANE: Final = "SN17-Lane"
"""``exact``, or ``fast`` where the worker left steps out because it was asked to."""
HEADER_WORKER: Final = "SN17-Worker"
HEADER_PROMPT_TOKENS_CUT: Final = "SN17-Prompt-Tokens-Cut"
HEADER_REPORT: Final = "SN17-Report"
HEADER_REQUEST_ID: Final = "X-Request-ID"
HEADER_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
IDEMPOTENCY_KEY: Final = r"[\x21-\x7e]{1,200}"
"""What such a key is made of, as a regular expression."""
MEDIA_PLY: Final = "application/ply"
MEDIA_SPZ: Final = "application/x-spz-404"
MEDIA_PROBLEM: Final = "application/problem+json"
FIXER_SCHEMA: Final = "sn17.fixer/v1"
REPORT_HEADER_MAX_BYTES: Final = 4096


class Code(StrEnum):
    """Machine-readable ``code`` of a problem answer."""

    # 503
    BUSY = "busy"
    DRAINING = "draining"
    WARMING_UP = "warming_up"
    MEMORY_REFUSED = "memory_refused"
    DEGRADED = "degraded"
    OVERLOADED = "overloaded"
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    JOB_KILLED_MODEL = "job_killed_model"
    # 422
    EMPTY_STRUCTURE = "empty_structure"
    STRUCTURE_TOO_LARGE = "structure_too_large"
    BAD_PROMPT = "bad_prompt"
    BAD_IMAGE = "bad_image"
    BAD_SPLAT = "bad_splat"
    BAD_REQUEST = "bad_request"
    # others
    TOO_LARGE = "too_large"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    BOOT_ID_MISMATCH = "boot_id_mismatch"
    LIFE_ID_MISMATCH = "life_id_mismatch"
    NO_ROOM = "no_room"
    DEVICE_BUSY = "device_busy"
    CONFLICT = "conflict"
    GONE = "gone"
    RATE_LIMITED = "rate_limited"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class WorkerState(StrEnum):
    """``state`` of ``GET /v1/worker``."""

    WARMING = "warming"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    REFUSING = "refusing"
    DEGRADED = "degraded"


class LeaseOwner(StrEnum):
    """``by`` of a drain lease, the one to show first first."""

    SHUTDOWN = "shutdown"
    USER = "user"
    OPERATOR = "operator"
