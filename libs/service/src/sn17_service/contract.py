"""Every name that two rooms share: ports, routes, headers, codes, metrics, labels and annotations.

A name lives here once. Dashboards, alerts, queries and chart templates are held against it by tests.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

# --- HTTP -------------------------------------------------------------------------------------------

TRELLIS_PORT: Final = 10006
FIXER_PORT: Final = 8080
OPS_PORT: Final = 9090

HEADER_SEED: Final = "SN17-Seed"
HEADER_GAUSSIANS: Final = "SN17-Gaussians"
HEADER_WORKER: Final = "SN17-Worker"
HEADER_REPORT: Final = "SN17-Report"
HEADER_REQUEST_ID: Final = "X-Request-ID"
HEADER_IDEMPOTENCY_KEY: Final = "Idempotency-Key"

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
    CONFLICT = "conflict"
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


EXIT_CODE_RECYCLE: Final = 75

MODEL_MISSING: Final = "ModelMissing"
"""First word, before a colon, of a worker's last words when nobody gave it weights."""

# --- Metrics ----------------------------------------------------------------------------------------

PREFIX: Final = "sn17_"


class Metric(StrEnum):
    """Full metric names; counters without the ``_total`` that the exposition adds."""

    # every service
    MEMORY_UNRECLAIMABLE = "sn17_memory_unreclaimable_bytes"
    MEMORY_WORKING_SET = "sn17_memory_working_set_bytes"
    MEMORY_LIMIT = "sn17_memory_limit_bytes"
    MEMORY_MARK_RATIO = "sn17_memory_mark_ratio"
    MEMORY_COMPONENT = "sn17_memory_component_bytes"
    DRAINING = "sn17_draining"
    READY = "sn17_ready"
    REFUSALS = "sn17_refusals"
    BOOT_INFO = "sn17_boot_info"
    # trellis
    GENERATIONS = "sn17_generations"
    GENERATION_GAUSSIANS = "sn17_generation_gaussians"
    GENERATION_DURATION = "sn17_generation_duration_seconds"
    RECENT_GAUSSIANS_MEAN = "sn17_recent_gaussians_mean"
    RECENT_GENERATION_P50 = "sn17_recent_generation_seconds_p50"
    RECENT_GENERATIONS = "sn17_recent_generations"
    JOBS_IN_FLIGHT = "sn17_jobs_in_flight"
    LAST_PROGRESS = "sn17_last_progress_timestamp_seconds"
    LAST_GENERATION = "sn17_last_generation_timestamp_seconds"
    CANARY_DRIFT = "sn17_canary_drift_ratio"
    GPU_ERRORS = "sn17_gpu_errors"
    GPU_MEMORY = "sn17_gpu_memory_bytes"
    SELF_RECYCLES = "sn17_self_recycles"
    OUTPUT_FINDINGS = "sn17_output_findings"
    DEGRADED = "sn17_degraded"
    # fixer
    FIXES = "sn17_fixes"
    FIX_DURATION = "sn17_fix_duration_seconds"
    FIX_INFLIGHT = "sn17_fix_inflight"
    # miner
    TASKS = "sn17_tasks"
    TASK_SCORE = "sn17_task_score"
    DELIVERY = "sn17_delivery_seconds"
    COOLDOWN_IDLE = "sn17_cooldown_idle_seconds"
    COOLDOWN_VIOLATIONS = "sn17_cooldown_violations"
    NEXT_PULL = "sn17_next_pull_timestamp_seconds"
    JOURNAL_TASKS = "sn17_journal_tasks"
    TASKS_PULLED = "sn17_tasks_pulled"
    TASKS_ENHANCED = "sn17_tasks_enhanced"
    TASK_OVERHEAD = "sn17_task_overhead_seconds"
    GIVEN_UP = "sn17_given_up"
    DECISIONS = "sn17_decisions"
    GATE_THRESHOLD = "sn17_gate_threshold"
    INTERNAL_ERRORS = "sn17_internal_errors"
    VALIDATORS = "sn17_validators"
    SPOOL_BYTES = "sn17_spool_bytes"
    CLOCK_SKEW = "sn17_clock_skew_seconds"
    REGISTERED = "sn17_registered"
    EMISSION = "sn17_emission"
    INCENTIVE = "sn17_incentive"
    STAKE = "sn17_stake"
    IMMUNITY_BLOCKS_LEFT = "sn17_immunity_blocks_left"
    PRUNE_POSITION = "sn17_prune_position"
    BURN_PRICE = "sn17_burn_price"
    CHAIN_SNAPSHOT_AGE = "sn17_chain_snapshot_age_seconds"
    # operator
    WORKERS = "sn17_workers"
    ACTIONS = "sn17_actions"
    BLOCKED = "sn17_blocked"
    TICK_DURATION = "sn17_tick_duration_seconds"
    TICK_AGE = "sn17_tick_age_seconds"
    PROMETHEUS_ERRORS = "sn17_prometheus_errors"
    API_ERRORS = "sn17_api_errors"
    SUCCESS_RATIO = "sn17_success_ratio"


class GenerationKind(StrEnum):
    """``kind`` label of generations; only ``task`` ever counts as evidence."""

    TASK = "task"
    CANARY = "canary"
    WARMUP = "warmup"


class DegradedReason(StrEnum):
    """``reason`` label of ``sn17_degraded``: why a worker does not trust itself. No series: it does."""

    SUSPECT_OUTPUTS = "suspect_outputs"
    DEVICE_ERROR = "device_error"
    CANARY_UNUSABLE = "canary_unusable"
    CANARY_FAILED = "canary_failed"


class GenerationOutcome(StrEnum):
    """``outcome`` label of generations."""

    OK = "ok"
    EMPTY_STRUCTURE = "empty_structure"
    STRUCTURE_TOO_LARGE = "structure_too_large"
    BAD_REQUEST = "bad_request"
    MEMORY_REFUSED = "memory_refused"
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    DEVICE_ERROR = "device_error"
    UNUSABLE = "unusable"
    CANCELLED = "cancelled"
    FAILED = "failed"


CANARY_DRIFT_MARK: Final = 0.20
"""A ``canary_drift_ratio`` above it is drift; every statistic is scaled to this mark."""

RECENT_WINDOW_SECONDS: Final = 1800.0

# --- Outcomes ---------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """How a task ended. Success = accepted / (all but skipped); yield = accepted / pulled."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNVALIDATED = "unvalidated"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    GIVEN_UP = "given_up"


class GivenUpReason(StrEnum):
    """The closed list of reasons for ``given_up``."""

    BAD_PROMPT = "bad_prompt"
    EMPTY_STRUCTURE = "empty_structure"
    NO_WORKER = "no_worker"
    GENERATION_FAILED = "generation_failed"
    UNREPAIRABLE = "unrepairable"
    VALIDATOR_DROPPED = "validator_dropped"
    VALIDATOR_UNREACHABLE = "validator_unreachable"
    REFUSED_BY_VALIDATOR = "refused_by_validator"
    ANSWER_LOST = "answer_lost"
    FIXER_UNAVAILABLE = "fixer_unavailable"


# --- Kubernetes -------------------------------------------------------------------------------------

GROUP: Final = "sn17.io"
VERSION: Final = "v1alpha1"
KIND: Final = "SN17Miner"
PLURAL: Final = "sn17miners"
SHORT_NAME: Final = "snm"

PART_OF: Final = "sn17"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"

ANNOTATION_INTENT: Final = "sn17.io/intent"
ANNOTATION_HISTORY: Final = "sn17.io/history"
ANNOTATION_CORDON: Final = "sn17.io/cordon"
ANNOTATION_SKIP_REMEDIATION: Final = "sn17.io/skip-remediation"
ANNOTATION_RECYCLE_REQUESTED: Final = "sn17.io/recycle-requested"
ANNOTATION_PAUSED: Final = "sn17.io/paused"

# --- Memory marks (shares of the limit; judged on unreclaimable bytes) -------------------------------

GUARD_CLEANUP_RATIO: Final = 0.75
GUARD_REFUSE_RATIO: Final = 0.88
