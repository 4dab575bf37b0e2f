"""torch and the GPU's driver."""

from __future__ import annotations

from dataclasses import dataclass

from sn17.doctor.model import Finding, failed, not_used, ok, warning

INSTALL = "uv sync --inexact --package sn17 --extra torch"


@dataclass(frozen=True, slots=True)
class Torch:
    """What a process of its own found when it imported torch.

    missing: modules of the torch extra that are not installed. problem: why the import failed, or why the
    GPU cannot be used. cuda: version of CUDA that torch was built for, None for a build without.
    driver: version of the loaded NVIDIA driver, None where there is none. devices: names of usable GPUs.
    """

    missing: tuple[str, ...] = ()
    version: str = ""
    cuda: str | None = None
    devices: tuple[str, ...] = ()
    driver: str | None = None
    problem: str = ""


def judge_torch(found: Torch) -> Finding:
    if found.missing:
        said = f"{', '.join(found.missing)} not installed"
        if found.driver:
            return failed(
                f"there is an NVIDIA driver ({found.driver}), but {said}", "install the extra", INSTALL
            )
        return not_used(f"{said}; the procedural backend needs none", f"for the torch backend: {INSTALL}")
    if not found.version:
        return failed(
            f"torch cannot be imported: {found.problem}",
            "install it again",
            f"{INSTALL} --reinstall-package torch",
        )
    named = f"torch {found.version}"
    if found.devices:
        return ok(f"{named} on {', '.join(found.devices)} (driver {found.driver or 'unknown'})")
    if not found.driver:
        if found.cuda is None:
            return ok(f"{named} without a GPU: enough for the bundled checkpoint")
        return warning(
            f"{named} for CUDA {found.cuda}, and no NVIDIA driver is loaded: the bundled checkpoint only",
            "on a machine with a GPU install NVIDIA's driver",
        )
    if found.cuda is None:
        return failed(
            f"there is an NVIDIA driver ({found.driver}), but {named} is built without CUDA",
            "install a build for CUDA from https://pytorch.org/get-started/locally",
        )
    return failed(
        f"{named} for CUDA {found.cuda} cannot use the GPU (driver {found.driver}): "
        f"{found.problem or 'no device is visible'}",
        f"install a driver that knows CUDA {found.cuda}, and let this process see the device "
        "(CUDA_VISIBLE_DEVICES, a container's --gpus)",
    )
