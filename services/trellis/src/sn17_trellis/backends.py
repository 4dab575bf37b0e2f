"""Backends by name; what a backend needs is imported only when it is chosen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from sn17_trellis.settings import WorkerSettings

if TYPE_CHECKING:
    from sn17_trellis.backend import Backend


class BackendUnavailable(RuntimeError):  # noqa: N818
    """The chosen backend cannot be had in this installation; the message says how to get it."""


def create_backend(settings: WorkerSettings) -> Backend:
    """The backend of ``SN17_BACKEND``, not loaded yet.

    ``torch`` and ``reference`` come from ``create_backend(settings)`` of the module
    ``sn17_trellis.engine.<name>_backend``.

    Raises:
        BackendUnavailable: its packages are missing.
    """
    if settings.backend == "procedural":
        from sn17_trellis.procedural import ProceduralBackend

        return ProceduralBackend(
            settings.procedural_max_gaussians,
            ballast_bytes=settings.procedural_ballast_mib * 1024 * 1024,
            load_seconds=settings.procedural_load_seconds,
            warmup_seconds=settings.procedural_warmup_seconds,
            job_seconds=settings.procedural_job_seconds,
        )
    module = f"sn17_trellis.{settings.backend}_backend"
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(
            f"the {settings.backend} backend needs packages that are not installed "
            f"({error.name}); uv sync --inexact --package sn17-trellis --extra torch"
        ) from error
    return cast("Backend", found.create_backend(settings))
