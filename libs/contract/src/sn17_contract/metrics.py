"""Metric names and the values of their labels."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

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
    CANARY_INFO = "sn17_canary_info"
    GPU_ERRORS = "sn17_gpu_errors"
    GPU_MEMORY = "sn17_gpu_memory_bytes"
    SELF_RECYCLES = "sn17_self_recycles"
    OUTPUT_FINDINGS = "sn17_output_findings"
    GENERATION_LANES = "sn17_generation_lanes"
    PROMPT_TOKENS_CUT = "sn17_prompt_tokens_cut"
    DEGRADED = "sn17_degraded"
    LIFE_INFO = "sn17_life_info"
    MODEL_INFO = "sn17_model_info"
    MODEL_PROCESSES = "sn17_model_processes"
    PROCESS_MEMORY = "sn17_process_memory_bytes"
    SWAP_ROOM = "sn17_swap_room"
    SWAP_THRESHOLD_RATIO = "sn17_swap_threshold_ratio"
    SWAP_TERM = "sn17_swap_term_bytes"
    SWAPS = "sn17_swaps"
    SWAP_SECONDS = "sn17_swap_seconds"
    SWAP_DEVICE_SECONDS = "sn17_swap_device_seconds"
    JOB_SECONDS = "sn17_job_seconds"
    JOBS_RERUN = "sn17_jobs_rerun"
    MODEL_ENDS = "sn17_model_ends"
    MODEL_START_FAILURES = "sn17_model_start_failures"
    MODEL_FAILING_STARTS = "sn17_model_failing_starts"
    DEVICE_INFO = "sn17_device_info"
    DEVICE_FAULT = "sn17_device_fault"
    DEVICE_TEMPERATURE = "sn17_device_temperature_celsius"
    DEVICE_UTILIZATION = "sn17_device_utilization_ratio"
    DEVICE_MEMORY = "sn17_device_memory_bytes"
    DEVICE_ECC_ERRORS = "sn17_device_ecc_errors"
    DEVICE_RETIRED_PAGES = "sn17_device_retired_pages"
    DEVICE_REMAPPED_ROWS = "sn17_device_remapped_rows"
    DEVICE_REPAIR_PENDING = "sn17_device_repair_pending"
    DEVICE_THROTTLED = "sn17_device_throttled"
    DEVICE_XIDS = "sn17_device_xids"
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
    TASK_LANES = "sn17_task_lanes"
    GATEWAY_POLLS = "sn17_gateway_polls"
    GATEWAY_NODES = "sn17_gateway_nodes"
    OPEN_TASKS = "sn17_open_tasks"
    DOOR_WEIGHT = "sn17_door_weight"
    WORK_TASKS = "sn17_work_tasks"
    DECISIONS = "sn17_decisions"
    GATE_THRESHOLD = "sn17_gate_threshold"
    INTERNAL_ERRORS = "sn17_internal_errors"
    VALIDATORS = "sn17_validators"
    VALIDATOR_UID = "sn17_validator_uid"
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
    # gateway
    GATEWAY_TASKS = "sn17_gateway_tasks"
    GATEWAY_RESULTS = "sn17_gateway_results"
    GATEWAY_ERRORS = "sn17_gateway_errors"
    GATEWAY_DELIVERIES = "sn17_gateway_deliveries"
    GATEWAY_RETURNED = "sn17_gateway_returned"
    GATEWAY_WAIT = "sn17_gateway_wait_seconds"
    GATEWAY_GENERATION = "sn17_gateway_generation_seconds"
    GATEWAY_OPEN_TASKS = "sn17_gateway_open_tasks"
    GATEWAY_OLDEST_WAIT = "sn17_gateway_oldest_wait_seconds"
    # operator
    WORKERS = "sn17_workers"
    ACTIONS = "sn17_actions"
    BLOCKED = "sn17_blocked"
    TICK_DURATION = "sn17_tick_duration_seconds"
    TICK_AGE = "sn17_tick_age_seconds"
    PROMETHEUS_ERRORS = "sn17_prometheus_errors"
    API_ERRORS = "sn17_api_errors"
    SUCCESS_RATIO = "sn17_success_ratio"
    RULE_BREACHES = "sn17_rule_breaches"
    SUSPECT_DEVICES = "sn17_suspect_devices"


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
    MODEL_FAILING = "model_failing"
    DEVICE_SUSPECT = "device_suspect"


class DeviceFault(StrEnum):
    """``reason`` label of ``sn17_device_fault``: what the driver says of a device. No series: no fault."""

    LOST = "lost"
    ROW_REMAP_FAILED = "row_remap_failed"
    XID = "xid"


class WorkState(StrEnum):
    """``state`` label of ``sn17_work_tasks``; their sum is how many workers could be at work."""

    RUNNING = "running"
    """Holds a worker."""
    WAITING = "waiting"
    """Waits for one."""
    DUE = "due"
    """Could be fetched now: a validator without cooldown, or a task that a gateway has queued."""
    SOON = "soon"
    """A validator whose cooldown ends within the time that a worker needs to start."""


class SwapPhase(StrEnum):
    """``phase`` label of ``sn17_swap_seconds``, in the order in which they happen."""

    SPAWN = "spawn"
    LOAD = "load"
    WARMUP = "warm-up"
    CANARY = "canary"
    SWITCH = "switch"
    REAP = "reap"


class RerunCause(StrEnum):
    """``cause`` label of ``sn17_jobs_rerun_total``: why a job ran a second time in the next life."""

    KILLED = "killed"
    CRASHED = "crashed"
    REPLACED = "replaced"
    STALLED = "stalled"


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
    JOB_KILLED_MODEL = "job_killed_model"
    CANCELLED = "cancelled"
    FAILED = "failed"


CANARY_DRIFT_THRESHOLD: Final = 0.20
"""A ``canary_drift_ratio`` above it is drift; every statistic is scaled to this threshold."""

RECENT_WINDOW_SECONDS: Final = 1800.0


class GatewayOutcome(StrEnum):
    """``outcome`` label of the gateway's results."""

    SUCCESS = "success"
    FAILURE = "failure"
    REFUSED = "refused"
    TIMEOUT = "timeout"
