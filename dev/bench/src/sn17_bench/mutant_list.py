"""One-line faults by core. ``old`` becomes ``new`` in the one place where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Core:
    """A part whose tests must notice: its package's folder, its name, and those tests."""

    name: str
    folder: str
    package: str
    tests: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault in ``file`` of the core's package."""

    core: Core
    file: str
    old: str
    new: str

    @property
    def key(self) -> str:
        """By which survivors are listed."""
        return f"{self.core.package}/{self.file}: {self.old} -> {self.new}"


def _of(core: Core, file: str, *changes: tuple[str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(core, file, old, new) for old, new in changes)


_MINER: Final = ("services/miner", "sn17_miner")
_OPERATOR: Final = ("operator", "sn17_operator")
_TRELLIS: Final = ("services/trellis", "sn17_trellis")

GATE: Final = Core("gate", *_MINER, "services/miner/tests/test_miner_gate.py")
VERDICT: Final = Core(
    "verdict",
    *_MINER,
    "services/miner/tests/test_miner_parts.py -k 'answers or repeated or repetition or failed_calls'",
)
SCHEDULER: Final = Core("scheduler", *_MINER, "services/miner/tests/test_miner_scheduler.py")
PLANNER: Final = Core(
    "planner",
    *_OPERATOR,
    "operator/tests/test_operator_planner.py operator/tests/test_operator_people.py"
    " operator/tests/test_operator_simulation.py operator/tests/test_operator_swaps.py",
)
DEVICES: Final = Core("devices", *_OPERATOR, "operator/tests/test_operator_devices.py")
LADDER: Final = Core(
    "ladder",
    *_OPERATOR,
    "operator/tests/test_operator_ladder.py operator/tests/test_operator_simulation.py"
    " operator/tests/test_operator_swaps.py operator/tests/test_operator_people.py",
)
GUARD: Final = Core(
    "guard",
    *_TRELLIS,
    "services/trellis/tests/test_guard.py",
)
REPAIR: Final = Core(
    "repair",
    "services/fixer",
    "sn17_fixer",
    "services/fixer/tests/test_steps.py services/fixer/tests/test_fixer_policy.py",
)
ENGINE: Final = Core(
    "engine",
    *_TRELLIS,
    "services/trellis/tests/engine/test_glue.py services/trellis/tests/engine/test_fast.py"
    " services/trellis/tests/engine/test_fast_lane.py",
)

_GATE: Final = (
    *_of(
        GATE,
        "core/gate.py",
        ("rate * (1.0 - chance) * penalty", "rate * penalty"),
        ("cost / (1.0 + DUEL_WORTH + cost)", "cost / (1.0 + cost)"),
        ("held_back + 1 >= every", "False"),
        ("better = hopeless and recent >= least", "better = False"),
        ("seconds = cycle + penalty *", "seconds = cycle + 0 *"),
        ("if s.seeds_left > 0 and s.worker_free", "if s.worker_free"),
        ("s.generation < s.left and again", "again"),
        ("again > now_worth + _GAIN", "again > now_worth - 1.0"),
        ("2.0 ** min(10, rejections + 1)", "2.0 ** min(10, rejections + 3)"),
    ),
    *_of(
        GATE,
        "core/evidence.py",
        ("self.mean < chance and", "True and"),
        ("SURE: Final = 4.5", "SURE: Final = 0.5"),
        ("seen.rejections = 0 if accepted else", "seen.rejections = 7 if accepted else"),
        ("max(seen.judged * fade, seen.rejections)", "seen.judged * fade"),
        ("known * _holds(mean, known, accepted, judged)", "known"),
        ("return {\"healthy\": left} if left > 0.0 or not counts else {}", "return {\"healthy\": 2.0}"),
        ("seen.held_back = 0 if handed_in else", "seen.held_back = 0 if not handed_in else"),
        ("0.5 ** (max(0.0, now - seen.at) / self.half_life)", "1.0"),
    ),
    *_of(GATE, "core/learning.py", ("+ late + self.idle", "+ late")),
)  # fmt: skip

_VERDICT: Final = _of(
    VERDICT,
    "core/verdict.py",
    ("standing.accepted == 0 or", "False or"),
    ("or standing == terms.standing:", "or False:"),
    ("feedback.task_fidelity_score > 0", "True"),
    ("if feedback.validation_failed:", "if False:"),
    ("until <= sent_theirs + min(DATE_SPAN, terms.base_cooldown / 4)", "until <= sent_theirs"),
    ("    if skipped:\n", "    if False:\n"),
    ("left < terms.base_cooldown + gap / 2 if gap > 0", "left < terms.base_cooldown - gap if gap > 0"),
    ("if gap > 0 else resent", "if gap > 0 else True"),
    ("error.status == 403 and", "True and"),
    ("error.status in (408, 422)", "error.status in (422,)"),
)

_SCHEDULER: Final = _of(
    SCHEDULER,
    "core/scheduler.py",
    ("+ self.policy.cooldown_margin", ""),
    ("lane.failures, lane.cooldown_until = 0, until", "lane.cooldown_until = until"),
    ("and now >= lane.wake_at:", "and True:"),
    ("lane.phase is Phase.READY and not lane.leaving", "lane.phase is Phase.READY"),
    ("key=lambda lane: (lane.wake_at, -lane.neuron.stake)", "key=lambda lane: 0"),
    ("max(0, min(allowed, len(free)))", "len(free)"),
    ("(lane.wake_at, -lane.neuron.stake)", "-lane.neuron.stake"),
    ("min(told, self._jittered(self.policy.unregistered_retry))", "told"),
    ("min(lane.learned.offset.ours(until), now + self.policy.longest_cooldown)",
     "lane.learned.offset.ours(until)"),
    ("if neuron.hotkey == self.miner_hotkey or", "if"),
    ("            lane.failures += 1\n", ""),
    ("max(0.0, now - max(lane.cooled_at, worker.since))", "max(0.0, now - lane.cooled_at)"),
)  # fmt: skip

_PLANNER: Final = (
    *_of(
        PLANNER,
        "core/planner.py",
        ("pod.ready and not pod.deleting and not pod.held and", "pod.ready and not pod.held and"),
        ("if worker.pod.held) + open_evictions", "if worker.pod.held)"),
        ("in_flight + 1 > capacity.budget or", "in_flight > capacity.budget or"),
        ("unavailable + costs > capacity.budget", "unavailable > capacity.budget"),
        ("            and not swap\n            and (in_flight", "            and (in_flight"),
        ("return finding.priority, fullness,", "return finding.priority, 0.0,"),
        ("pod.created_at >= record.at - 2", "True"),
        ("and pod.intent is None\n\n\ndef _overdue", "\n\n\ndef _overdue"),
    ),
    *_of(
        PLANNER,
        "core/refusal.py",
        ("if capacity.short_circuit:\n            return", "if False:\n            return"),
        ("now - fleet.short_circuit_at < rules.storm_cooldown_seconds", "False"),
        ("finding.rule != RuleName.MEMORY_EMERGENCY and not swap", "not swap"),
        ("if pod.kept_by_person:\n        return", "if False:\n        return"),
        ("if fleet.rollout is not None and fleet.rollout.in_progress:", "if False:"),
    ),
    *_of(
        DEVICES,
        "core/refusal.py",
        ("capacity.failing > capacity.unhealthy_allowed", "False"),
        ("if not_helped(worker, finding.rule):", "if False:"),
    ),
    *_of(
        DEVICES,
        "core/devices.py",
        ("not trial.judged and now - since < young", "not trial.judged"),
        ("breaching is not None and not trial.judged and", "breaching is not None and"),
        ("(w.degraded_since or now) >= trial.at", "True"),
        ("failures >= FAILED_ACTS", "failures > FAILED_ACTS"),
        ("worker.pod.created_at > suspect_at", "True"),
        ("and rule != RuleName.CANARY_DISAGREES", ""),
        ("return {} if len(used) > scaled(", "return {} if False and len(used) > scaled("),
        ("w.life != trial.life", "True"),
        ("(Health.HEALTHY,) if trial.suspect_at is not None else", "(Health.HEALTHY,) if False else"),
        ("if step.cause == RuleName.REQUESTED and", "if False and"),
    ),
    *_of(
        DEVICES,
        "core/device_rules.py",
        ("if reading.value >= threshold", "if reading.value > threshold"),
        ("each.health is DeviceHealth.UNHEALTHY", "each.health is not DeviceHealth.HEALTHY"),
    ),
)  # fmt: skip

_LADDER: Final = (
    *_of(
        LADDER,
        "core/escalation.py",
        ("and now - (history.recycled_at or 0.0) < young", ""),
        ("degraded_since - history.tried_at < young", "True"),
        ("return AFTER.get(history.tried, Stage.RECYCLE)", "return Stage.SWAP"),
        ("or rule in BY_CONTAINER:", "or False:"),
        ("if rule == RuleName.STALLED or", "if"),
        ("rule_class is RuleClass.MEMORY and _no_room(worker)", "False"),
        ("evidence.doubt is DegradedReason.DEVICE_SUSPECT", "False"),
    ),
    *_of(
        LADDER,
        "core/remediation.py",
        ("if self.short_circuit and intent.rule_class is RuleClass.QUALITY:", "if False:"),
        ("            if waited < self.spec.drain.timeout_seconds:\n", "            if True:\n"),
        ("seen and ratios.value >= rule.clear_percent / 100", "seen"),
        ("if not result.passed:", "if False:"),
        ("result is None or result.at < self.intent.at", "result is None"),
        ("failed >= rules.maximum_evictions", "failed > rules.maximum_evictions"),
        ("if self.replaced and pod.phase is Phase.RUNNING:", "if self.replaced:"),
        ("(share := self.leftover()) is not None", "(share := self.leftover()) is not None and False"),
        ("age < self.spec.recycle.young_seconds and", "False and"),
    ),
)  # fmt: skip

_GUARD: Final = _of(
    GUARD,
    "guard.py",
    ("clean and ratio >= self._thresholds.cleanup", "ratio >= self._thresholds.cleanup"),
    ("before, ratio = ratio, self._ratio()", "before = ratio"),
    ("if ratio < self._thresholds.refuse:", "if ratio <= self._thresholds.refuse:"),
    ("            self._refusing_since = None\n            return None", "            return None"),
    ("        if self._refusing_since is None:\n", "        if True:\n"),
    ("or self._resting():", "or False:"),
    ("if not refusing or seconds_alone < self._after:", "if seconds_alone < self._after:"),
    ("0 <= now - self._last < self._interval", "False"),
    ("        self._last = now\n", ""),
    ("if reading is None:\n            return 0.0", "if reading is None:\n            return 1.0"),
    ("max(self._growth, reading.unreclaimable - self._before)", "reading.unreclaimable - self._before"),
)  # fmt: skip

_REPAIR: Final = (
    *_of(
        REPAIR,
        "steps/opacity.py",
        ("np.log(values) - np.log1p(-values)", "np.log(values) - np.log(values)"),
        ("logits >= clamp - _SINGLE_PRECISION", "logits >= clamp + _SINGLE_PRECISION"),
        ("restored[top], restored[bottom] = above, below", "restored[top], restored[bottom] = below, above"),
        ("1.0 if low <= std <= high else", "1.0 if True else"),
        ("(logits - mean) * factor + reference.mean", "(logits - mean) * factor + mean"),
        ("logits[lost] = local_logits(splats, lost)", "logits[lost] = logits[~lost].mean()"),
        ("high = (1 - reference.mean) / reference.std", "high = -reference.mean / reference.std"),
    ),
    *_of(
        REPAIR,
        "steps/sanitise.py",
        ("np.copysign(np.float32(CLAMP_LOGIT), splats.opacity_logits)", "np.float32(CLAMP_LOGIT)"),
        ("if infinite else np.isnan", "if not infinite else np.isnan"),
        ("(scales > highest) | (scales == -np.inf)", "(scales > highest)"),
        ("np.where(bad, np.float32(0), splats.f_rest)", "splats.f_rest"),
    ),
    *_of(REPAIR, "steps/trim.py", ("keep[strays.rows] = False", "keep[strays.rows[:-1]] = False")),
    *_of(REPAIR, "steps/placement.py", ("center.mean() - positions.mean()", "0.0")),
)

_ENGINE: Final = (
    *_of(
        ENGINE,
        "engine/pipeline.py",
        ("out * out.new_tensor(self.normalization.std) +", "out +"),
        ("self.decoder(latent) > 0", "self.decoder(latent) > 0.5"),
        ("noise = self.latent_noise(generator, voxels)\n            latents",
         "noise = self.latent_noise(torch.Generator().manual_seed(request.seed), voxels)\n"
         "            latents"),
    ),
    *_of(
        ENGINE,
        "engine/fast.py",
        ("or self._table_key != params", ""),
        ("key.copy_(new_key)", "pass"),
    ),
    *_of(
        ENGINE,
        "engine/sampler.py",
        ("low <= t <= high", "low < t < high"),
        ("low <= t <= high", "low <= t < high"),
        ("guided_steps % savings.unconditional_every == 0", "True"),
        ("and branches <= in_store", ""),
        ("(1 + strength) * given[0] - strength * given[1]", "strength * given[0] - strength * given[1]"),
        ("difference = given[0] - given[1]", "difference = given[1] - given[0]"),
        ("before[1].guided != step.guided", "False"),
        ("(v.clone(), step)", "(v, step)"),
        ("np.linspace(1, 0, params.steps + 1)", "np.linspace(1, 0, params.steps + 2)[:-1]"),
        ("(step.t - step.following) / (before[1].t - before[1].following)", "1.0"),
    ),
    *_of(
        ENGINE,
        "engine/gaussians.py",
        ("fn.layer_norm(h.float(), h.shape[-1:])", "fn.layer_norm(h, h.shape[-1:]).float()"),
        ("torch.exp(self.scaling + math.log(cfg.scaling_bias))", "torch.exp(self.scaling)"),
    ),
    *_of(ENGINE, "engine/conditioning.py", ("> 0.8 * 255", ">= 0.8 * 255")),
)  # fmt: skip

MUTANTS: Final = (
    *_GATE, *_VERDICT, *_SCHEDULER, *_PLANNER, *_LADDER, *_GUARD, *_REPAIR, *_ENGINE
)  # fmt: skip
