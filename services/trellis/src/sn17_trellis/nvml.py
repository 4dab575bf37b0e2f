"""The driver's management library (NVML): its functions that are used here, and how they fail."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

TEMPERATURE_GPU: Final = 0
"""``NVML_TEMPERATURE_GPU``."""
CORRECTED: Final = 0
"""``NVML_MEMORY_ERROR_TYPE_CORRECTED``."""
UNCORRECTED: Final = 1
"""``NVML_MEMORY_ERROR_TYPE_UNCORRECTED``."""
VOLATILE: Final = 0
"""``NVML_VOLATILE_ECC``: since the driver was loaded."""
SINGLE_BIT_PAGES: Final = 0
"""``NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS``."""
DOUBLE_BIT_PAGES: Final = 1
"""``NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR``."""
XID_EVENTS: Final = 8
"""``nvmlEventTypeXidCriticalError``."""
ERROR_TIMEOUT: Final = 10
"""``NVML_ERROR_TIMEOUT``: no event came."""
ERROR_GPU_IS_LOST: Final = 15
"""``NVML_ERROR_GPU_IS_LOST``: it has fallen off the bus or cannot be reached."""
ERROR_RESET_REQUIRED: Final = 16
"""``NVML_ERROR_RESET_REQUIRED``: it works again only after a reset."""
log = logging.getLogger("sn17.trellis.device")
_NAMED: Final = ("GPU-", "MIG-")


class Nvml(Protocol):
    """The functions of nvml.h that are used here, under their own names, as Python's binding has them.

    Each raises an error whose ``value`` is the header's ``nvmlReturn_t``.
    """

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlSystemGetDriverVersion(self) -> str: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802

    def nvmlDeviceGetComputeMode(self, handle: Any) -> int: ...  # noqa: N802

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: N802

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: Any = None) -> Any: ...  # noqa: N802

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, errorType: int, counterType: int) -> int: ...  # noqa: N802

    def nvmlDeviceGetRetiredPages(self, device: Any, sourceFilter: int) -> Sequence[int]: ...  # noqa: N802

    def nvmlDeviceGetRetiredPagesPendingStatus(self, device: Any) -> int: ...  # noqa: N802

    def nvmlDeviceGetRemappedRows(self, device: Any) -> tuple[int, int, int, int]: ...  # noqa: N802

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int: ...  # noqa: N802

    def nvmlEventSetCreate(self) -> Any: ...  # noqa: N802

    def nvmlDeviceRegisterEvents(self, handle: Any, eventTypes: int, eventSet: Any) -> None: ...  # noqa: N802

    def nvmlEventSetWait_v2(self, eventSet: Any, timeoutms: int) -> Any: ...  # noqa: N802


def driver_version(library: Nvml | None) -> str | None:
    """Such as ``580.65.06``; None without a driver, and where nobody knows."""
    if library is None:
        return None
    try:
        library.nvmlInit()
        return library.nvmlSystemGetDriverVersion()
    except Exception as error:
        # The binding's errors have no base class but Exception; a machine without a GPU is no fault.
        log.info("the driver's version is not known: %s", error)
        return None


def installed_library() -> Nvml | None:
    """The binding; it finds the driver's library when it is first asked."""
    try:
        return cast("Nvml", importlib.import_module("pynvml"))
    except ImportError:
        return None


def with_prefix(uuid: str) -> str:
    """The UUID as NVML writes it; torch leaves the prefix out."""
    return uuid if uuid.startswith(_NAMED) else f"GPU-{uuid}"


def visible_device(value: str | None) -> str | None:
    """The only device that the container runtime was asked for by ``NVIDIA_VISIBLE_DEVICES``, by UUID."""
    return value if value is not None and value.startswith(_NAMED) and "," not in value else None
