"""Metrics that are computed when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable

from sn17_contract.metrics import Metric
from sn17_contract.tasks import NodePhase, Phase, TaskState

from sn17_miner.core import gate
from sn17_miner.core.workload import workload
from sn17_miner.generation import holder
from sn17_miner.metrics import label
from sn17_miner.miner import Miner

Row = tuple[str, str, dict[str, str], float]


def gauges(miner: Miner) -> Iterable[Row]:
    """Everything that is computed when scraped."""
    context = miner.context
    now = context.clock()
    lanes = list(context.scheduler.lanes.values())
    for lane in lanes:
        name = {"validator": label(lane.neuron.hotkey)}
        yield Metric.VALIDATOR_UID, "The validator's number on the subnet.", name, lane.neuron.uid
        at = lane.next_pull
        if at is not None:
            yield Metric.NEXT_PULL, "When the validator is asked next.", name, at
        learned = lane.learned
        least = learned.outlook(now).break_even
        threshold = (
            least
            if context.scorer is None
            else gate.lowest_score(learned.evidence, threshold=learned.threshold, least=least, now=now)
        )
        yield Metric.GATE_THRESHOLD, "Below it a result is not submitted.", name, threshold
    for phase in Phase:
        count = sum(1 for lane in lanes if lane.phase is phase)
        yield Metric.VALIDATORS, "Validators by phase.", {"phase": phase.value}, count
    for state in TaskState:
        yield (
            Metric.JOURNAL_TASKS,
            "Tasks in the journal.",
            {"state": state.value},
            miner.counts.get(state, 0),
        )
    for door, weight in miner.doors.sharing.weights.items():
        yield Metric.DOOR_WEIGHT, "Share of the workers against the other doors'.", {"door": door}, weight
        yield Metric.OPEN_TASKS, "Tasks under way.", {"door": door}, miner.open_by_door[door]
    yield from _work(miner, now)
    nodes = list(miner.gateways.nodes.nodes.values())
    for door in miner.gateways.sources:
        for node_phase in NodePhase:
            count = sum(1 for node in nodes if (node.door, node.phase) == (door, node_phase))
            labels = {"door": door, "phase": node_phase.value}
            yield Metric.GATEWAY_NODES, "Nodes of gateways by phase.", labels, count
    yield Metric.SPOOL_BYTES, "Payloads on disk.", {}, miner.spool_bytes
    yield Metric.CLOCK_SKEW, "Validators' clocks minus ours, median.", {}, miner.clock_skew()
    yield from _chain(miner)


def _work(miner: Miner, now: float) -> Iterable[Row]:
    held, waiting = miner.context.pool.holders()
    takes = not miner.closed()
    found = workload(
        miner.context.scheduler.lanes.values(),
        now,
        miner.limits.scale_ahead,
        doors={holder(n): door for n, door in miner.doors_of.items()},
        held=held,
        waiting=waiting,
        queued=miner.gateways.queued(now) if takes else {},
        pulls=takes and miner.unregistered() is None,
    )
    for (door, state), tasks in found.items():
        yield Metric.WORK_TASKS, "Workers that could be at work.", {"door": door, "state": state.value}, tasks


def _chain(miner: Miner) -> Iterable[Row]:
    snapshot, age = miner.feed.snapshot, miner.feed.age
    if snapshot is None or age is None:
        return
    hotkey = miner.context.scheduler.miner_hotkey
    neuron = snapshot.neuron(hotkey)
    yield Metric.CHAIN_SNAPSHOT_AGE, "Since the chain was read.", {}, age
    yield Metric.BURN_PRICE, "Registration cost in TAO.", {}, snapshot.burn_price
    yield (
        Metric.REGISTERED,
        "Whether the hotkey is registered; uid as label.",
        {"uid": str(neuron.uid) if neuron else ""},
        float(neuron is not None),
    )
    if neuron is None:
        return
    yield Metric.EMISSION, "Alpha per tempo.", {}, neuron.emission
    yield Metric.INCENTIVE, "Share of 1.", {}, neuron.incentive
    yield Metric.STAKE, "Alpha.", {}, neuron.stake
    yield Metric.IMMUNITY_BLOCKS_LEFT, "Blocks until it may be pruned.", {}, neuron.immune_blocks_left
    position = snapshot.prune_position(hotkey)
    if position is not None:
        yield Metric.PRUNE_POSITION, "How many are pruned before us.", {}, position
