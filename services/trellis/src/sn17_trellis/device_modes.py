"""Whether a device takes a second process, from the driver's management library (NVML)."""

from __future__ import annotations

import logging
from typing import Final

from sn17_trellis.nvml import Nvml, with_prefix

EXCLUSIVE_THREAD: Final = 1
PROHIBITED: Final = 2
EXCLUSIVE_PROCESS: Final = 3
_REFUSING: Final = {
    EXCLUSIVE_THREAD: "EXCLUSIVE_THREAD",
    PROHIBITED: "PROHIBITED",
    EXCLUSIVE_PROCESS: "EXCLUSIVE_PROCESS",
}
"""Values of ``nvmlComputeMode_t`` that let no second context in."""

log = logging.getLogger("sn17.trellis.device")


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
        name = with_prefix(device)
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
