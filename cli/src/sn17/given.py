"""Paths and addresses that a person gave: read and checked in one place, refused in one sentence."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import typer

from sn17.console import say
from sn17.exits import Exit

_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")


class GivenError(ValueError):
    """What was given cannot be used; the message names it and says why."""


def text_of(path: Path) -> str:
    """The text of a file. Raises GivenError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise GivenError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GivenError(f"{path}: no text in UTF-8") from error


def secret_of(path: Path) -> str:
    """The one line of a file with a token or a key. Raises GivenError."""
    word = text_of(path).strip()
    if not word or not word.isascii() or not word.isprintable():
        raise GivenError(f"{path}: holds no token or key: it must be one line of ASCII")
    return word


def address_of(url: str) -> str:
    """An HTTP address without a slash at its end. Raises GivenError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # Other names are written as xn--...: not every form of them is one.
        good = bool(_HOST.fullmatch(host)) or ":" in host
        good = good and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isprintable() or " " in url or parts.query or parts.fragment:
        raise GivenError(f"{url!r} is no address: write it as http://HOST:PORT or https://HOST")
    return url.rstrip("/")


def guarded(command: Any, name: str) -> Any:
    """``command`` and all below it, which say in one sentence what was given and cannot be used."""
    work = command.callback
    if work is not None:

        @functools.wraps(work)
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return work(*arguments, **options)
            except GivenError as error:
                say(f"sn17 {name}: {error}", error=True)
                raise typer.Exit(Exit.CANNOT) from error

        command.callback = call
    for below in getattr(command, "commands", {}).values():
        guarded(below, name)
    return command
