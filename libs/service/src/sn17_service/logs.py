"""Logs for people or for machines: one line per event, with the request they belong to."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from contextvars import ContextVar
from typing import Literal, TextIO

from sn17_contract.text import neutralise

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that the current task works for."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


def configure_logging(log_format: Literal["human", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send everything to ``stream`` (stderr) in one format. Extra fields go in by ``extra={...}``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx2", "httpcore"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", "request_id"?, "error"?, ...extra}`` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class HumanFormatter(logging.Formatter):
    """Time, level, logger, message, then ``key=value`` of the extra fields, on one line.

    Nothing in it steers a terminal or looks like another line, whoever wrote it. Tracebacks keep their lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = neutralise(
            f"{_time(record)[11:23]} {record.levelname:<7} {record.name}: {record.getMessage()}{extra}"
        )
        if not record.exc_info:
            return line
        trace = neutralise(self.formatException(record.exc_info), lines=True)
        return f"{line}\n  {trace.replace(chr(10), chr(10) + '  ')}"


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, object]:
    fields = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    current = request_id.get()
    return {"request_id": current, **fields} if current else fields
