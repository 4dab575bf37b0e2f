"""What every sn17 pod needs once: settings, logs, health, drain, metrics, memory."""

from sn17_service.drain import DrainLease, Lease
from sn17_service.health import Health, Readiness
from sn17_service.logs import configure_logging, request_id
from sn17_service.memory import (
    MemoryReader,
    MemoryReading,
    MemoryUnavailable,
    memory_reader,
    memory_status,
    return_heap,
)
from sn17_service.names import refuse_unknown_query, unknown_name
from sn17_service.orphans import reap_orphans
from sn17_service.problems import Problem, ProblemBody
from sn17_service.process import become_subreaper, die_with, die_with_parent
from sn17_service.service import Service
from sn17_service.settings import ServiceSettings, describe_settings, load_settings

__all__ = [
    "DrainLease",
    "Health",
    "Lease",
    "MemoryReader",
    "MemoryReading",
    "MemoryUnavailable",
    "Problem",
    "ProblemBody",
    "Readiness",
    "Service",
    "ServiceSettings",
    "become_subreaper",
    "configure_logging",
    "describe_settings",
    "die_with",
    "die_with_parent",
    "load_settings",
    "memory_reader",
    "memory_status",
    "reap_orphans",
    "refuse_unknown_query",
    "request_id",
    "return_heap",
    "unknown_name",
]
