"""What the driver's management library (NVML) knows: its version, whether a device takes a second process."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Final, Protocol, cast

EXCLUSIVE_THREAD: Final = 1
PROHIBITED: Final = 2
EXCLUSIVE_PROCESS: Final = 3
_REFUSING: Final = {
    EXCLUSIVE_THREAD: "EXCLUSIVE_THREAD",
    PROHIBITED: "PROHIBITED",
    EXCLUSIVE_PROCESS: "EXCLUSIVE_PROCESS",
}
"""Values of ``nvmlComputeMode_t`` that let no second context in."""
_NAMED: Final = ("GPU-", "MIG-")

log = logging.getLogger("sn17.trellis.device")


class Nvml(Protocol):
    """The functions of nvml.h that are used here, under their own names, as Python's binding has them.

    Each raises an error whose ``value`` is the header's ``nvmlReturn_t``.
    """

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlSystemGetDriverVersion(self) -> str: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802

    def nvmlDeviceGetComputeMode(self, handle: Any) -> int: ...  # noqa: N802


class DeviceModes:
    """Asked anew each time, since a person may change the mode. Without a library nothing is known."""

    def __init__(self, library: Nvml | None) -> None:
        self._library = library
        self._ready = False
        self._told = False

    def why_exclusive(self, device: str | None) -> str | None:
        """Why no second process gets onto the device; None where one may, or where nobody knows.

        ``device`` is a UUID, with or without its prefix.
        """
        if device is None or self._library is None:
            return None
        name = device if device.startswith(_NAMED) else f"GPU-{device}"
        try:
            if not self._ready:
                self._library.nvmlInit()
                self._ready = True
            mode = self._library.nvmlDeviceGetComputeMode(self._library.nvmlDeviceGetHandleByUUID(name))
        except Exception as error:
            # The binding's errors have no base class but Exception where its library is missing.
            if not self._told:
                log.warning("the compute mode of the device is not known: %s", error)
            self._told = True
            return None
        word = _REFUSING.get(mode)
        if word is None:
            return None
        return (
            f"device {name} is in compute mode {word}, which lets no second process in; "
            "replace the model process, or set the mode to DEFAULT (nvidia-smi -c DEFAULT)"
        )


def driver_version(library: Nvml | None) -> str | None:
    """Such as ``580.65.06``; None without a driver, and where nobody knows."""
    if library is None:
        return None
    try:
        library.nvmlInit()
        return library.nvmlSystemGetDriverVersion()
    except Exception as error:
        # As above; a machine without a GPU is no fault.
        log.info("the driver's version is not known: %s", error)
        return None


def installed_library() -> Nvml | None:
    """The binding; it finds the driver's library when it is first asked."""
    try:
        return cast("Nvml", importlib.import_module("pynvml"))
    except ImportError:
        return None
