"""A management library without a driver: functions, constants and errors under the names of nvml.h."""

from __future__ import annotations

from collections.abc import Mapping

import pynvml

CARD = "GPU-8f1d4c1e-2f55-4e0c-9a63-0d1b5d0a7c11"


class FakeNvml:
    """``modes``: compute mode by UUID. ``broken``: the ``nvmlReturn_t`` that every function ends with."""

    def __init__(self, modes: Mapping[str, int], broken: int | None = None) -> None:
        self.modes = dict(modes)
        self.broken = broken
        self.initialised = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self._fail()
        self.initialised += 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._ready()
        return "580.65.06"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._ready()
        if uuid not in self.modes:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetComputeMode(self, handle: str) -> int:  # noqa: N802
        self._ready()
        return self.modes[handle]

    def _ready(self) -> None:
        self._fail()
        if not self.initialised:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _fail(self) -> None:
        if self.broken is not None:
            raise pynvml.NVMLError(self.broken)
