"""The driver's word about the device, from a library without a driver: what it knows and what it does not."""

from __future__ import annotations

import inspect
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from nvml_fake import CARD, FakeNvml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from sn17_trellis import nvml
from sn17_trellis.device_health import (
    BROKEN_XIDS,
    OLD_SECONDS,
    THROTTLES,
    DeviceCollector,
    DeviceWatch,
)
from sn17_trellis.nvml import visible_device

SLOWED = "hw_thermal_slowdown"
ANSWERS = {
    "nvmlDeviceGetTemperature": 71,
    "nvmlDeviceGetUtilizationRates": 93,
    "nvmlDeviceGetMemoryInfo": (30, 100),
    "nvmlDeviceGetTotalEccErrors": (5, 1),
    "nvmlDeviceGetRetiredPages": (2, 1),
    "nvmlDeviceGetRetiredPagesPendingStatus": 0,
    "nvmlDeviceGetRemappedRows": (3, 4, 1, 0),
    "nvmlDeviceGetCurrentClocksThrottleReasons": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown,
    "nvmlEventSetCreate": (),
    "nvmlDeviceRegisterEvents": None,
}


def watched(
    library: FakeNvml | None, device: str | None = CARD
) -> tuple[DeviceWatch, Callable[[], list[str]], list[float]]:
    """A watch, the lines of its metrics, and its clock."""
    now, registry = [100.0], CollectorRegistry()
    watch = DeviceWatch(library, lambda: device, lambda: now[0])
    DeviceCollector(watch, registry)

    def lines() -> list[str]:
        text = generate_latest(registry).decode().splitlines()
        return [line.removeprefix("sn17_device_").replace(CARD, "UUID") for line in text if line[0] != "#"]

    return watch, lines, now


def failing(code: int, *names: str) -> dict[str, Any]:
    return {name: pynvml.NVMLError(code) for name in names}


def test_the_fake_has_the_functions_of_the_real_binding() -> None:
    public = [name for name in vars(FakeNvml) if not name.startswith("_")]
    assert public == [name for name in vars(nvml.Nvml) if name.startswith("nvml")]
    for name in public:
        real = list(inspect.signature(getattr(pynvml, name)).parameters)
        assert real == list(inspect.signature(getattr(FakeNvml, name)).parameters)[1:], name
        assert real == list(inspect.signature(getattr(nvml.Nvml, name)).parameters)[1:], name


def test_the_numbers_are_those_of_the_header() -> None:
    assert (nvml.TEMPERATURE_GPU, nvml.VOLATILE) == (pynvml.NVML_TEMPERATURE_GPU, pynvml.NVML_VOLATILE_ECC)
    assert nvml.CORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    assert nvml.UNCORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    assert nvml.SINGLE_BIT_PAGES == pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS
    assert nvml.DOUBLE_BIT_PAGES == pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR
    assert pynvml.nvmlEventTypeXidCriticalError == nvml.XID_EVENTS
    assert nvml.ERROR_TIMEOUT == pynvml.NVML_ERROR_TIMEOUT
    assert nvml.ERROR_GPU_IS_LOST == pynvml.NVML_ERROR_GPU_IS_LOST
    assert nvml.ERROR_RESET_REQUIRED == pynvml.NVML_ERROR_RESET_REQUIRED
    for bit, name in THROTTLES.items():
        word = "".join(part.capitalize() for part in name.split("_"))
        assert bit == getattr(pynvml, f"nvmlClocksThrottleReason{word}")


def test_everything_that_the_driver_knows_is_told_with_the_uuid() -> None:
    watch, lines, _ = watched(FakeNvml({CARD: 0}, answers=ANSWERS), CARD.removeprefix("GPU-"))
    assert lines() == []
    watch.look()
    assert lines() == [
        'info{uuid="UUID"} 1.0',
        'temperature_celsius{uuid="UUID"} 71.0',
        'utilization_ratio{uuid="UUID"} 0.93',
        'repair_pending{uuid="UUID"} 1.0',
        'memory_bytes{kind="used",uuid="UUID"} 30.0',
        'memory_bytes{kind="total",uuid="UUID"} 100.0',
        'retired_pages{cause="single_bit",uuid="UUID"} 2.0',
        'retired_pages{cause="double_bit",uuid="UUID"} 1.0',
        'remapped_rows{kind="corrected",uuid="UUID"} 3.0',
        'remapped_rows{kind="uncorrected",uuid="UUID"} 4.0',
        *(
            f'throttled{{reason="{n}",uuid="UUID"}} {float(n == "hw_thermal_slowdown")}'
            for n in THROTTLES.values()
        ),
        'ecc_errors_total{kind="corrected",uuid="UUID"} 5.0',
        'ecc_errors_total{kind="uncorrected",uuid="UUID"} 1.0',
    ]


KNOWN_CODES = sorted(
    {
        value
        for name, value in vars(pynvml).items()
        if name.startswith("NVML_ERROR_") and value not in (nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED)
    }
)


@pytest.mark.parametrize("code", KNOWN_CODES)
def test_what_is_not_known_is_no_fault(code: int) -> None:
    names = [name for name in ANSWERS if name != "nvmlInit"]
    watch, lines, _ = watched(FakeNvml({CARD: 0}, answers=failing(code, *names)))
    watch.look()
    assert lines() == ['info{uuid="UUID"} 1.0']
    assert not watch.listen(0.0)
    for library in (
        FakeNvml({CARD: 0}, broken=code),
        FakeNvml({CARD: 0}, answers=failing(code, "nvmlDeviceGetHandleByUUID")),
        FakeNvml({}),
        None,
    ):
        watch, lines, _ = watched(library)
        watch.look()
        assert lines() == []


@pytest.mark.parametrize("code", [nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED])
@pytest.mark.parametrize("name", ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTemperature"])
def test_card_that_is_lost_is_a_fault_and_said_once(
    name: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    library = FakeNvml({CARD: 0}, answers={**ANSWERS, **failing(code, name)})
    watch, lines, _ = watched(library)
    for _ in range(3):
        watch.look()
    assert 'fault{reason="lost",uuid="UUID"} 1.0' in lines()
    assert len(caplog.records) == 1
    library.answers = ANSWERS
    watch.look()
    assert not [line for line in lines() if line.startswith("fault")], "after a reset it is well again"


def test_row_that_cannot_be_remapped_is_a_fault() -> None:
    watch, lines, _ = watched(
        FakeNvml({CARD: 0}, answers={**ANSWERS, "nvmlDeviceGetRemappedRows": (0, 1, 0, 1)})
    )
    watch.look()
    assert 'fault{reason="row_remap_failed",uuid="UUID"} 1.0' in lines()


@pytest.mark.parametrize(("xid", "broken"), [(79, True), (13, False), (31, False), (48, True)])
def test_xids_are_counted_and_those_of_the_hardware_are_faults(xid: int, broken: bool) -> None:
    assert (xid in BROKEN_XIDS) == broken
    watch, lines, _ = watched(FakeNvml({CARD: 0}, answers={**ANSWERS, "nvmlEventSetCreate": (xid, xid)}))
    watch.look()
    assert watch.listen(0.0)
    assert watch.listen(0.0)
    assert watch.listen(0.0), "none came, and the next may"
    assert f'xids_total{{uuid="UUID",xid="{xid}"}} 2.0' in lines()
    assert ('fault{reason="xid",uuid="UUID"} 1.0' in lines()) == broken


def test_old_reading_and_unknown_device_say_nothing() -> None:
    watch, lines, now = watched(FakeNvml({CARD: 0}, answers=ANSWERS))
    watch.look()
    now[0] += OLD_SECONDS
    assert lines()
    now[0] += 1
    assert lines() == [], "a driver that hangs"
    library = FakeNvml({CARD: 0}, answers=ANSWERS)
    watch, lines, _ = watched(library, None)
    watch.look()
    assert lines() == []
    assert library.initialised == 0


def test_the_runtimes_word_counts_where_it_names_one_device() -> None:
    assert visible_device(CARD) == CARD
    assert [visible_device(v) for v in (None, "all", "void", "0", "", f"{CARD},{CARD}")] == [None] * 6


def test_a_worker_tells_of_its_device_through_the_real_binding(
    tmp_path: Path, new_process: Callable[..., Any], wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """A shared library in the place of the driver's, which the binding finds and calls as it would that."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the library with")
    codes = {n: v for n, v in vars(pynvml).items() if n == "NVML_SUCCESS" or n.startswith("NVML_ERROR_")}
    source = Path(__file__).parent / "nvml_mock.c"
    target = tmp_path / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *(f"-D{n}={v}" for n, v in codes.items())]
    subprocess.run([compiler, *flags, "-o", str(target), str(source)], check=True)
    said = tmp_path / "said"
    said.write_text(f"uuid {CARD}\ntemperature 66\nret.nvmlDeviceGetRetiredPages {nvml.ERROR_TIMEOUT}\n")
    worker = new_process(
        environ={
            "LD_LIBRARY_PATH": str(tmp_path),
            "NVML_MOCK_FILE": str(said),
            "NVIDIA_VISIBLE_DEVICES": CARD,
        }
    )

    def device(name: str, label: str = "") -> float | None:
        found: float | None = worker.metric(f'sn17_device_{name}{{{label}uuid="{CARD}"}}')
        return found

    wait_until(lambda: device("info") == 1)
    assert device("temperature_celsius") == 66
    assert device("memory_bytes", 'kind="used",') == 300
    assert device("remapped_rows", 'kind="uncorrected",') == 0
    assert device("retired_pages", 'cause="double_bit",') is None
    assert device("fault", 'reason="xid",') is None
    half = tmp_path / "half"
    half.write_text(said.read_text() + "rows_failed 1\nthrottle 0x40\nxid 79\nevents 1\n")
    half.replace(said)
    wait_until(lambda: device("fault", 'reason="xid",') == 1)
    assert device("fault", 'reason="row_remap_failed",') == 1
    assert device("throttled", 'reason="hw_thermal_slowdown",') == 1
    assert worker.metric(f'sn17_device_xids_total{{uuid="{CARD}",xid="79"}}') == 1
    assert "Xid 79" in worker.log()
    assert worker.state()["state"] == "ready", "what the driver says stops no worker"
