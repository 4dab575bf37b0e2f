"""Compute modes of devices; the fake has the names and codes that the binding takes from nvml.h."""

from __future__ import annotations

import pynvml
import pytest
from nvml_fake import CARD, FakeNvml
from sn17_trellis import device_modes
from sn17_trellis.device_modes import DeviceModes
from sn17_trellis.nvml import driver_version, installed_library


def test_the_modes_have_the_numbers_of_the_header() -> None:
    ours = (device_modes.EXCLUSIVE_THREAD, device_modes.PROHIBITED, device_modes.EXCLUSIVE_PROCESS)
    assert ours == (
        pynvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD,
        pynvml.NVML_COMPUTEMODE_PROHIBITED,
        pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
    )
    assert pynvml.NVML_COMPUTEMODE_COUNT == 4


@pytest.mark.parametrize("uuid", [CARD, CARD.removeprefix("GPU-")])
@pytest.mark.parametrize("mode", range(pynvml.NVML_COMPUTEMODE_COUNT))
def test_only_the_default_mode_takes_a_second_process(mode: int, uuid: str) -> None:
    found = DeviceModes(FakeNvml({CARD: mode})).why_exclusive(uuid)
    assert (found is None) == (mode == pynvml.NVML_COMPUTEMODE_DEFAULT)
    if found is not None:
        assert CARD in found
        assert "nvidia-smi -c DEFAULT" in found


def test_a_mode_that_a_person_changes_is_seen() -> None:
    nvml = FakeNvml({CARD: pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS})
    modes = DeviceModes(nvml)
    assert modes.why_exclusive(CARD) is not None
    nvml.modes[CARD] = pynvml.NVML_COMPUTEMODE_DEFAULT
    assert modes.why_exclusive(CARD) is None
    assert nvml.initialised == 1


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_UNKNOWN,
    ],
)
def test_what_is_not_known_forbids_nothing_and_is_said_once(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    modes = DeviceModes(FakeNvml({CARD: pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS}, broken=code))
    assert [modes.why_exclusive(CARD) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert DeviceModes(FakeNvml({})).why_exclusive(CARD) is None, "a card that the library does not know"


def test_without_a_device_or_a_library_nothing_is_asked() -> None:
    nvml = FakeNvml({CARD: pynvml.NVML_COMPUTEMODE_PROHIBITED})
    assert DeviceModes(nvml).why_exclusive(None) is None
    assert nvml.initialised == 0
    assert DeviceModes(None).why_exclusive(CARD) is None
    assert installed_library() is pynvml


def test_the_drivers_version_is_said_where_there_is_one() -> None:
    assert driver_version(FakeNvml({})) == "580.65.06"
    assert driver_version(FakeNvml({}, broken=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)) is None
    assert driver_version(None) is None
