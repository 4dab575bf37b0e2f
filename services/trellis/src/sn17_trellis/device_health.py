"""What the driver says of the worker's device: read now and then beside the work, never in a scrape.

A driver that hangs must not make the worker look hung, so a thread of its own asks. What it does not know,
and what has not been read for a while, is not told at all.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sn17_contract.metrics import DeviceFault
from sn17_contract.metrics import Metric as MetricName

from sn17_trellis import nvml
from sn17_trellis.nvml import Nvml, with_prefix

INTERVAL_SECONDS: Final = 10.0
OLD_SECONDS: Final = 60.0
"""A reading that is older says nothing any more."""
SLICE_SECONDS: Final = 1.0
"""How long one wait for events lasts: the end of the service waits no longer."""
LOST_CODES: Final = (nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED)
BROKEN_XIDS: Final = frozenset({48, 62, 64, 79, 95, 119, 120, 140, 143})
"""Xids for which NVIDIA's catalogue asks for a reset of the device or more: double-bit and uncontained memory
errors, a failed row remap, a card off the bus, a controller or firmware that halted. All others may be the
application's.
"""
PAGES: Final = {"single_bit": nvml.SINGLE_BIT_PAGES, "double_bit": nvml.DOUBLE_BIT_PAGES}
THROTTLES: Final = {
    0x0000000000000004: "sw_power_cap",
    0x0000000000000008: "hw_slowdown",
    0x0000000000000020: "sw_thermal_slowdown",
    0x0000000000000040: "hw_thermal_slowdown",
    0x0000000000000080: "hw_power_brake_slowdown",
}
"""Bits of ``nvmlClocksThrottleReason*`` that slow work down; idle and settings do not."""

log = logging.getLogger("sn17.trellis.device")


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One look at a device; None and what is not in a mapping is not known. Memory is bytes, utilization a
    share, temperature in degrees Celsius. ``pending``: a repair waits for a reset of the device.
    """

    uuid: str
    at: float
    temperature: float | None = None
    utilization: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    retired_pages: Mapping[str, int] = field(default_factory=dict)
    remapped_rows: Mapping[str, int] = field(default_factory=dict)
    pending: bool | None = None
    throttled: Mapping[str, bool] = field(default_factory=dict)
    faults: frozenset[DeviceFault] = frozenset()
    xids: Mapping[int, int] | None = None
    """Count by number since the service began to listen; None where the driver gives no events."""


class DeviceWatch:
    """Reads the device that ``device`` names by UUID; the last one is remembered while none is known."""

    def __init__(
        self, library: Nvml | None, device: Callable[[], str | None], monotonic: Callable[[], float]
    ) -> None:
        self._library = library
        self._device = device
        self._monotonic = monotonic
        self._uuid: str | None = None
        self._events: Any = None
        self._listens_to: str | None = None
        self._ready = False
        self._told: set[tuple[str, object]] = set()
        self._xids: Counter[int] = Counter()
        self._reading: DeviceReading | None = None
        self._closing = threading.Event()

    # --- the thread -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Look again and again, where there is a library to ask."""
        if self._library is not None:
            threading.Thread(target=self._run, name="device-health", daemon=True).start()

    def close(self) -> None:
        """Stop at the next occasion; nobody waits for a driver that hangs."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self.look()
            until = self._monotonic() + INTERVAL_SECONDS
            while self._monotonic() < until and not self._closing.is_set():
                if not self.listen(SLICE_SECONDS):
                    self._closing.wait(SLICE_SECONDS)

    # --- reading --------------------------------------------------------------------------------------

    @property
    def reading(self) -> DeviceReading | None:
        """The newest reading, unless it is too old."""
        found = self._reading
        return found if found is not None and self._monotonic() - found.at <= OLD_SECONDS else None

    def look(self) -> None:
        """Read everything once."""
        device = self._device()
        self._uuid = self._uuid if device is None else with_prefix(device)
        if self._library is None or self._uuid is None:
            return
        at, faults = self._monotonic(), set[DeviceFault]()
        if not self._ready:
            self._ready = self._ask(faults, "nvmlInit") is not _UNKNOWN
        if not self._ready:
            return
        handle = self._ask(faults, "nvmlDeviceGetHandleByUUID", self._uuid)
        found = DeviceReading(self._uuid, at)
        if handle is not _UNKNOWN:
            found = self._read(found, handle, faults)
            self._register(handle)
        elif not faults:
            return  # nothing is known of it, not even that it is lost
        if BROKEN_XIDS & self._xids.keys():
            faults.add(DeviceFault.XID)
        xids = dict(self._xids) if self._events is not None else None
        self._reading = replace(found, faults=frozenset(faults), xids=xids)

    def listen(self, seconds: float) -> bool:
        """Wait for events; false where there are none to wait for."""
        events, library = self._events, self._library
        if events is None or library is None:
            return False
        try:
            event = library.nvmlEventSetWait_v2(events, int(seconds * 1000))
        except Exception as error:
            if getattr(error, "value", None) == nvml.ERROR_TIMEOUT:
                return True
            self._say("nvmlEventSetWait_v2", error)
            self._events = self._listens_to = None
            return False
        xid = int(event.eventData)
        self._xids[xid] += 1
        broken = xid in BROKEN_XIDS
        log.log(
            logging.ERROR if broken else logging.WARNING,
            "the driver reports Xid %d of %s%s",
            *(xid, self._uuid, ": the device needs a reset or more" if broken else ""),
        )
        self.look()
        return True

    def _read(self, found: DeviceReading, handle: Any, faults: set[DeviceFault]) -> DeviceReading:
        def ask(name: str, *arguments: Any) -> Any:
            return self._ask(faults, name, handle, *arguments)

        temperature = ask("nvmlDeviceGetTemperature", nvml.TEMPERATURE_GPU)
        rates = ask("nvmlDeviceGetUtilizationRates")
        memory = ask("nvmlDeviceGetMemoryInfo")
        ecc = {
            kind: ask("nvmlDeviceGetTotalEccErrors", number, nvml.VOLATILE)
            for kind, number in (("corrected", nvml.CORRECTED), ("uncorrected", nvml.UNCORRECTED))
        }
        pages = {cause: ask("nvmlDeviceGetRetiredPages", number) for cause, number in PAGES.items()}
        retiring = ask("nvmlDeviceGetRetiredPagesPendingStatus")
        rows = ask("nvmlDeviceGetRemappedRows")
        bits = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        pending = [
            bool(v) for v in (retiring, _UNKNOWN if rows is _UNKNOWN else rows[2]) if v is not _UNKNOWN
        ]
        if rows is not _UNKNOWN and rows[3]:
            faults.add(DeviceFault.ROW_REMAP_FAILED)
        return replace(
            found,
            temperature=None if temperature is _UNKNOWN else float(temperature),
            utilization=None if rates is _UNKNOWN else rates.gpu / 100,
            memory={} if memory is _UNKNOWN else {"used": int(memory.used), "total": int(memory.total)},
            ecc_errors={kind: count for kind, count in ecc.items() if count is not _UNKNOWN},
            retired_pages={cause: len(each) for cause, each in pages.items() if each is not _UNKNOWN},
            remapped_rows={} if rows is _UNKNOWN else {"corrected": rows[0], "uncorrected": rows[1]},
            pending=any(pending) if pending else None,
            throttled={} if bits is _UNKNOWN else {name: bool(bits & bit) for bit, name in THROTTLES.items()},
        )

    def _register(self, handle: Any) -> None:
        if self._listens_to == self._uuid:
            return
        self._listens_to = self._uuid
        events = self._ask(set(), "nvmlEventSetCreate")
        if events is not _UNKNOWN:
            done = self._ask(set(), "nvmlDeviceRegisterEvents", handle, nvml.XID_EVENTS, events)
            self._events = None if done is _UNKNOWN else events

    def _ask(self, faults: set[DeviceFault], name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._library, name)(*arguments)
        except Exception as error:
            # The binding's errors have no base class but Exception where its library is missing.
            if getattr(error, "value", None) in LOST_CODES:
                faults.add(DeviceFault.LOST)
            self._say(name, error)
            return _UNKNOWN

    def _say(self, name: str, error: Exception) -> None:
        said = name, getattr(error, "value", None)
        if said not in self._told:
            level = logging.ERROR if said[1] in LOST_CODES else logging.INFO
            log.log(level, "%s of the device %s is not known: %s", name, self._uuid, error)
        self._told.add(said)


_UNKNOWN: Final = object()


class DeviceCollector(Collector):
    """The newest reading as metrics with the device's UUID; what is not known has no series."""

    def __init__(self, watch: DeviceWatch, registry: CollectorRegistry) -> None:
        self._watch = watch
        registry.register(self)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        found = self._watch.reading
        if found is None:
            return
        yield _gauge(MetricName.DEVICE_INFO, "The worker's device.", found, {"": 1.0})
        for name, text, value in (
            (MetricName.DEVICE_TEMPERATURE, "Temperature of the device.", found.temperature),
            (MetricName.DEVICE_UTILIZATION, "Share of time in which kernels ran.", found.utilization),
            (MetricName.DEVICE_REPAIR_PENDING, "1 where a repair waits for a reset.", found.pending),
        ):
            if value is not None:
                yield _gauge(name, text, found, {"": float(value)})
        for name, text, label, values in (
            (MetricName.DEVICE_MEMORY, "Memory of the device, all processes.", "kind", found.memory),
            (MetricName.DEVICE_RETIRED_PAGES, "Pages taken out of use.", "cause", found.retired_pages),
            (MetricName.DEVICE_REMAPPED_ROWS, "Rows replaced by spare ones.", "kind", found.remapped_rows),
            (MetricName.DEVICE_THROTTLED, "1 while clocks are lowered.", "reason", found.throttled),
            (
                *(MetricName.DEVICE_FAULT, "What the driver says of a broken device.", "reason"),
                dict.fromkeys((fault.value for fault in sorted(found.faults)), 1),
            ),
        ):
            if values:
                yield _gauge(name, text, found, {key: float(value) for key, value in values.items()}, label)
        if found.ecc_errors:
            counts = {kind: float(count) for kind, count in found.ecc_errors.items()}
            yield _counter(
                MetricName.DEVICE_ECC_ERRORS, "Memory errors since the driver.", "kind", found, counts
            )
        if found.xids is not None:
            counts = {str(number): float(count) for number, count in found.xids.items()}
            yield _counter(MetricName.DEVICE_XIDS, "Xids since the worker's start.", "xid", found, counts)


def _gauge(
    name: str, text: str, found: DeviceReading, values: Mapping[str, float], label: str = ""
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["uuid", label] if label else ["uuid"])
    for key, value in values.items():
        family.add_metric([found.uuid, key] if label else [found.uuid], value)
    return family


def _counter(
    name: str, text: str, label: str, found: DeviceReading, values: Mapping[str, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["uuid", label])
    for key, value in values.items():
        family.add_metric([found.uuid, key], value)
    return family
