"""Settings by environment, the same way in every process."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sn17_contract.http import OPS_PORT

from sn17_service.logs import configure_logging

ENV_PREFIX = "SN17_"
ENV_DELIMITER = "__"

Port = Annotated[int, Field(ge=0, le=65535)]
S = TypeVar("S", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """What every service can be told; each service adds its own fields in a subclass."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True
    )

    host: str = Field(
        "127.0.0.1", description="address both ports listen on; any: every address, IPv4 and IPv6"
    )
    port: Port = Field(0, description="data port; 0 picks a free one")
    ops_port: Port = Field(
        OPS_PORT, description="port of health, ready, metrics and admin; 0 picks a free one"
    )
    ready_file: Path | None = Field(None, description="where to write ports, pid and boot_id once listening")
    admin_token_file: Path | None = Field(None, description="bearer token of the admin routes; none = off")
    log_format: Literal["human", "json"] = "human"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    memory_source: Literal["auto", "cgroup", "process"] = Field(
        "auto", description="auto = the cgroup where it has a limit, else this process"
    )
    memory_limit_bytes: int | None = Field(
        None, gt=0, description="overrides the limit that the source gives"
    )
    die_with_parent: bool = Field(False, description="end when the parent process ends, even by SIGKILL")
    grace_seconds: float = Field(30.0, ge=0, description="time to finish running work after SIGTERM")
    header_timeout_seconds: float = Field(10.0, gt=0, description="to receive a request's head")
    body_timeout_seconds: float = Field(60.0, gt=0, description="to receive a request's body")
    send_timeout_seconds: float = Field(60.0, gt=0, description="for a client to take one piece of an answer")
    termination_log: Path = Field(
        Path("/dev/termination-log"), description="file for the reason of an exit; written only if it exists"
    )


def load_settings(cls: type[S], *, prog: str, description: str = "", argv: Sequence[str] | None = None) -> S:
    """Read settings from the environment and set up logging.

    ``--help`` lists every setting with its environment name. A setting that does not validate ends the
    process with code 2 and one line per mistake; values are never printed, they may be secrets.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="settings by environment:\n" + describe_settings(cls),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    try:
        settings = cls()
    except ValidationError as error:
        _refuse(prog, error)
    configure_logging(settings.log_format, settings.log_level)
    for name, near in unknown_settings(cls, os.environ):
        hint = f"; did you mean {near}?" if near else ""
        logging.getLogger(prog).warning("environment variable %s is not a setting of %s%s", name, prog, hint)
    return settings


def describe_settings(cls: type[BaseModel]) -> str:
    """One line per setting: environment name, type, default, description."""
    rows = list(_rows(cls, ENV_PREFIX))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"  {name:<{width}}  {default:<12} {text}".rstrip() for name, default, text in rows)


def unknown_settings(cls: type[BaseModel], environ: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Names that look like settings but are none, each with the nearest known name.

    Only a warning is made of them: Kubernetes itself injects such names for Services.
    """
    known = {name for name, _, _ in _rows(cls, ENV_PREFIX)}
    prefixes = tuple(f"{ENV_PREFIX}{field.upper()}" for field in cls.model_fields)
    found = []
    for name in sorted(environ):
        upper = name.upper()
        nested = any(upper == p or upper.startswith(p + ENV_DELIMITER) for p in prefixes)
        if upper.startswith(ENV_PREFIX) and upper not in known and not nested:
            near = difflib.get_close_matches(upper, known, n=1, cutoff=0.8)
            found.append((name, near[0] if near else None))
    return found


def _rows(cls: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in cls.model_fields.items():
        env = prefix + name.upper()
        nested = _model_of(field.annotation)
        if nested is not None:
            yield from _rows(nested, env + ENV_DELIMITER)
            continue
        default = (
            "(required)" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        )
        yield env, default, field.description or ""


def _model_of(annotation: object) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | int | float | list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def _refuse(prog: str, error: ValidationError) -> NoReturn:
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        name = ENV_PREFIX + ENV_DELIMITER.join(str(part).upper() for part in item["loc"])
        sys.stderr.write(f"{prog}: {name}: {item['msg']}\n")
    sys.stderr.write(f"{prog}: run with --help for all settings\n")
    raise SystemExit(2)
