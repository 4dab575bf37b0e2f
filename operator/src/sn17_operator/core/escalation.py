"""How far to go with a worker: the mildest act that has not just shown that it changes nothing."""

from __future__ import annotations

from sn17_contract.metrics import DegradedReason

from sn17_operator.api import Spec, Strategy
from sn17_operator.core.devices import points
from sn17_operator.core.model import RuleClass, RuleName, Stage, Worker
from sn17_operator.core.readings import Series, Signal

AFTER = {Stage.SWAP: Stage.REPLACE, Stage.REPLACE: Stage.RECYCLE}
"""What comes after an act that changed nothing; after the restart of a container comes its pod's eviction."""

BY_CONTAINER = frozenset({RuleName.UNREACHABLE, RuleName.GPU_ERROR, RuleName.MODEL_FAILING})
"""What another model process in the same container does not end."""


def first_act(spec: Spec, worker: Worker, rule: str, rule_class: RuleClass, now: float) -> Stage:
    """Swap, Replace, Recycle (the container) or Evict, for a rule that is breached.

    A swap needs room for two, a replacement a service that answers; neither ends what is held outside of the
    model process. A person who asks for a recycle means the container. A process beside one whose device has
    failed gets the same device in the same state: swapping it earned 0.78 of a restart. Only another pod may
    get another device.
    """
    evidence, history, pod = worker.evidence, worker.pod.history, worker.pod
    if rule in (RuleName.POD_MEMORY_HIGH, RuleName.DEVICE_UNHEALTHY):
        return Stage.EVICT
    if worker.suspect is not None and points(rule):
        return Stage.EVICT
    if spec.strategy is Strategy.EVICT_POD or evidence.doubt is DegradedReason.DEVICE_SUSPECT:
        return Stage.EVICT
    own = spec.strategy is Strategy.SWAP and evidence.separate_model
    if not own or rule_class is RuleClass.REQUEST or rule in BY_CONTAINER:
        return Stage.RECYCLE
    young = spec.recycle.young_seconds
    if pod.container_id == history.recycled_container and now - (history.recycled_at or 0.0) < young:
        return Stage.RECYCLE
    degraded_since = now if worker.degraded_since is None else worker.degraded_since
    if (
        history.tried is not None
        and history.tried_at is not None
        and degraded_since - history.tried_at < young
    ):
        return AFTER.get(history.tried, Stage.RECYCLE)
    if rule == RuleName.STALLED or (rule_class is RuleClass.MEMORY and _no_room(worker)):
        return Stage.REPLACE
    return Stage.SWAP


def _no_room(worker: Worker) -> bool:
    """The worker says that no second model process fits. Unknown is not no: it will answer for itself."""
    room = worker.evidence.series(Signal.SWAP_ROOM)
    return isinstance(room, Series) and room.value <= 0


def clears(spec: Spec, worker: Worker) -> bool | None:
    """Whether the memory of the present life is where no rule would act; None: not known."""
    memory, limit = (worker.evidence.series(s) for s in (Signal.MEMORY, Signal.LIMIT))
    if memory is None or limit is None or not limit.value > 0:
        return None
    threshold = worker.evidence.series(Signal.SWAP_THRESHOLD)
    low = spec.rules.memory.clear_percent / 100
    if threshold is not None and threshold.value == threshold.value:
        low = min(low, threshold.value)
    return memory.value / limit.value < low
