"""A management library without a driver: functions, constants and errors under the names of nvml.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pynvml

CARD = "GPU-8f1d4c1e-2f55-4e0c-9a63-0d1b5d0a7c11"


class FakeNvml:
    """``modes``: compute mode by UUID. ``broken``: the ``nvmlReturn_t`` that every function ends with.

    ``answers``: what a function gives, by its name: a value, or the ``NVMLError`` that it raises; functions
    that are not named are not supported. Events are numbers of Xids, each given once.
    """

    def __init__(
        self, modes: Mapping[str, int], broken: int | None = None, answers: Mapping[str, Any] | None = None
    ) -> None:
        self.modes = dict(modes)
        self.broken = broken
        self.answers = dict(answers or {})
        self.initialised = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self._fail()
        self.initialised += 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._ready()
        return "580.65.06"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._ready()
        if "nvmlDeviceGetHandleByUUID" in self.answers:
            self._answer("nvmlDeviceGetHandleByUUID")
        if uuid not in self.modes:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetComputeMode(self, handle: str) -> int:  # noqa: N802
        self._ready()
        return self.modes[handle]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return int(self._answer("nvmlDeviceGetTemperature"))

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self._answer("nvmlDeviceGetUtilizationRates"))

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: Any = None) -> SimpleNamespace:  # noqa: N802
        used, total = self._answer("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=used, total=total)

    def nvmlDeviceGetTotalEccErrors(self, handle: str, errorType: int, counterType: int) -> int:  # noqa: N802
        return int(self._answer("nvmlDeviceGetTotalEccErrors")[errorType])

    def nvmlDeviceGetRetiredPages(self, device: str, sourceFilter: int) -> Sequence[int]:  # noqa: N802
        return list(range(self._answer("nvmlDeviceGetRetiredPages")[sourceFilter]))

    def nvmlDeviceGetRetiredPagesPendingStatus(self, device: str) -> int:  # noqa: N802
        return int(self._answer("nvmlDeviceGetRetiredPagesPendingStatus"))

    def nvmlDeviceGetRemappedRows(self, device: str) -> tuple[int, int, int, int]:  # noqa: N802
        corrected, uncorrected, pending, failed = self._answer("nvmlDeviceGetRemappedRows")
        return corrected, uncorrected, pending, failed

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return int(self._answer("nvmlDeviceGetCurrentClocksThrottleReasons"))

    def nvmlEventSetCreate(self) -> list[int]:  # noqa: N802
        return list(self._answer("nvmlEventSetCreate"))

    def nvmlDeviceRegisterEvents(self, handle: str, eventTypes: int, eventSet: list[int]) -> None:  # noqa: N802
        self._answer("nvmlDeviceRegisterEvents")

    def nvmlEventSetWait_v2(self, eventSet: list[int], timeoutms: int) -> SimpleNamespace:  # noqa: N802
        self._ready()
        if not eventSet:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(eventData=eventSet.pop(0))

    def _answer(self, name: str) -> Any:
        self._ready()
        found = self.answers.get(name, pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED))
        if isinstance(found, Exception):
            raise found
        return found

    def _ready(self) -> None:
        self._fail()
        if not self.initialised:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _fail(self) -> None:
        if self.broken is not None:
            raise pynvml.NVMLError(self.broken)
