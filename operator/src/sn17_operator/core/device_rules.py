"""The rules about the device: what others say of it, its errors, and a model that does not start on it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sn17_contract.metrics import DegradedReason

from sn17_operator.core.context import Context, explain_gap
from sn17_operator.core.model import DeviceHealth, Finding, Outcome, RuleClass, RuleName
from sn17_operator.core.readings import Gap, Signal

DEVICE_DOUBTS = (DegradedReason.DEVICE_ERROR, DegradedReason.DEVICE_SUSPECT)


def device(context: Context) -> Iterator[Finding]:
    """DeviceUnhealthy: kubelet calls the device unhealthy, or the driver reports a fault of it.

    Silence proves nothing: a health that is unknown, a driver that cannot be asked and a device that supports
    none of it are no breach.
    """
    pod, evidence = context.pod, context.evidence
    answer = partial(
        context.finding,
        RuleName.DEVICE_UNHEALTHY,
        RuleClass.DEVICE,
        signals=(Signal.DEVICE, Signal.DEVICE_FAULT),
    )
    bad = [each.id for each in pod.devices if each.health is DeviceHealth.UNHEALTHY]
    told = [f"kubelet calls {name} unhealthy" for name in bad]
    if evidence.faults:
        told.append(f"the driver reports of {evidence.device or 'its device'}: {', '.join(evidence.faults)}")
    if told:
        yield answer(Outcome.BREACH, "; ".join(told))
    elif evidence.device is not None or any(d.health is DeviceHealth.HEALTHY for d in pod.devices):
        name = evidence.device or ", ".join(each.id for each in pod.devices)
        yield answer(Outcome.OK, f"nothing is reported against {name}")
    else:
        yield answer(Outcome.IDLE, "neither kubelet nor the driver says anything of its device")


def gpu_errors(context: Context) -> Iterator[Finding]:
    """GpuError: fatal device errors in this life, by the counter or by the worker's own word.

    The counter is the service's and outlives a model process, so it is compared with itself over the life.
    """
    threshold = float(context.spec.rules.gpu_errors.maximum)
    signals = (Signal.GPU_ERRORS, Signal.DEGRADED)
    answer = partial(
        context.finding, RuleName.GPU_ERROR, RuleClass.STALL, threshold=threshold, signals=signals
    )
    evidence, reading = context.evidence, context.reading(Signal.GPU_ERRORS)
    if evidence.separate_model and evidence.doubt in DEVICE_DOUBTS:
        yield answer(Outcome.BREACH, f"the worker itself says so: {evidence.doubt}")
        return
    if isinstance(reading, Gap):
        quiet = reading is Gap.ABSENT and evidence.boot_id is not None
        outcome = Outcome.IDLE if quiet else Outcome.UNKNOWN
        text = "none counted" if quiet else explain_gap(reading, "device errors", context, Signal.GPU_ERRORS)
        yield answer(outcome, text)
        return
    counted = reading.value
    if evidence.separate_model:
        first_at, first = reading.samples[0]
        # A series that appears in the middle of the life has counted from zero since.
        counted -= first if evidence.life_since is None or first_at <= evidence.life_since else 0.0
    outcome = Outcome.BREACH if counted > threshold else Outcome.OK
    text = f"{counted:.0f} fatal device errors, tolerated are {threshold:.0f}"
    yield answer(outcome, text, value=counted, at=reading.at)


def model_failing(context: Context) -> Iterator[Finding]:
    """ModelFailing: the service lives, but no model process gets ready any more, however often it tries."""
    threshold = context.spec.rules.model_failing.minimum_starts
    answer = partial(
        context.finding,
        RuleName.MODEL_FAILING,
        RuleClass.STALL,
        threshold=float(threshold),
        signals=(Signal.FAILING_STARTS,),
    )
    reading = context.reading(Signal.FAILING_STARTS)
    if isinstance(reading, Gap):
        # Workers of older images, and those without a model process of its own, do not count it.
        quiet = reading is Gap.ABSENT and context.evidence.boot_id is not None
        outcome = Outcome.IDLE if quiet else Outcome.UNKNOWN
        text = (
            "none counted" if quiet else explain_gap(reading, "failed starts", context, Signal.FAILING_STARTS)
        )
        yield answer(outcome, text)
        return
    outcome = Outcome.BREACH if reading.value >= threshold else Outcome.OK
    text = f"{reading.value:.0f} starts of the model process failed in a row, {threshold} are too many"
    yield answer(outcome, text, value=reading.value, at=reading.at)
