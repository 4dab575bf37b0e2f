"""Scenes and conducts of every ablation of the miner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from sn17_simulation.scene import NAIVE, Conduct, Scene, ValidatorModel, WorkerModel

ACCEPTANCES: Final = (0.1, 0.19, 0.21, 0.3, 0.44, 0.5, 0.58, 0.7, 0.9)
FEW: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
ENDS: Final = (0.1, 0.5, 0.9)
DAYS: Final = 2.5
SHORT: Final = 2.0
MONTH: Final = 30.0

_BOTH: Final = (WorkerModel(), WorkerModel())
_PLAIN: Final = replace(Conduct(), max_seeds=1, gate=False)


@dataclass(frozen=True, slots=True)
class Ablation:
    """A decision in one world: ``ours`` against the same conduct without it."""

    decision: str
    world: str
    ours: Conduct
    without: Conduct
    scene: Callable[[float], Scene]
    acceptances: tuple[float, ...] = ENDS


def _two(**changes: Any) -> Callable[[float], Scene]:
    """Two validators alike, two workers."""
    return lambda acceptance: replace(
        Scene(validators=(ValidatorModel(acceptance),) * 2, workers=_BOTH, days=DAYS), **changes
    )


def _mixed(acceptance: float) -> Scene:
    """One validator as asked for, one far more lenient, one strict."""
    return replace(_two()(acceptance), validators=_unlike(acceptance, (0.0, 0.3, -0.3)))


def _drifting(acceptance: float) -> Scene:
    drift = min(0.25, acceptance - 0.05, 0.95 - acceptance)
    return replace(_two()(acceptance), validators=(ValidatorModel(acceptance, drift=drift),) * 2)


def _unlike(acceptance: float, spread: tuple[float, ...]) -> tuple[ValidatorModel, ...]:
    return tuple(ValidatorModel(min(0.95, max(0.05, acceptance + more))) for more in spread)


def _scarce(*spread: float, **changes: Any) -> Callable[[float], Scene]:
    """Sixteen validators, one worker: it is always the worker that is waited for."""
    more = {"workers": (WorkerModel(job=25.0),), "days": 0.4, **changes}
    return lambda acceptance: Scene(validators=_unlike(acceptance, spread * (16 // len(spread))), **more)


_ALIKE: Final = (-0.09, -0.03, 0.03, 0.09)
COLD: Final = {"days": 2.0}
RESTART: Final = {"restart_at": 1.0}


def _gate(hand_in: Conduct, gated: Conduct, scored: Conduct) -> list[Ablation]:
    failing, repaired = {"fails_checks": 0.2}, {"damaged": 0.3}
    return [
        Ablation("gate", "no signal", gated, hand_in, _two(), ACCEPTANCES),
        Ablation("gate", "no signal, a month", gated, hand_in, _two(days=MONTH), (0.21,)),
        Ablation("gate", "no signal, strict and lenient", gated, hand_in, _mixed),
        Ablation("gate", "no signal, drift over the day", gated, hand_in, _drifting),
        Ablation("gate", "20 % fail the checks", gated, hand_in, _two(**failing)),
        Ablation("gate", "20 % fail the checks, a month", gated, hand_in, _two(**failing, days=MONTH)),
        Ablation("gate", "20 % fail, cold start (2 days)", gated, hand_in, _two(**failing, **COLD)),
        Ablation("gate", "30 % repaired, worse", gated, hand_in, _two(**repaired)),
        Ablation("gate", "scorer", scored, hand_in, _two(), FEW),
        Ablation("gate", "scorer, a month", scored, hand_in, _two(days=MONTH)),
        Ablation("gate", "scorer that knows nothing", scored, hand_in, _two(score_noise=50.0)),
        Ablation("gate", "scorer, strict and lenient", scored, hand_in, _mixed),
        Ablation("gate", "scorer, drift over the day", scored, hand_in, _drifting),
        Ablation("gate", "scorer, cold start (2 days)", scored, hand_in, _two(**COLD)),
        Ablation("gate", "scorer, restart", scored, hand_in, _two(**RESTART)),
        Ablation("gate", "scorer, one worker, 16 validators", scored, hand_in, _scarce(*_ALIKE)),
    ]


def _seeds(gated: Conduct, scored: Conduct) -> list[Ablation]:
    three, five, three_gated = (
        replace(scored, max_seeds=3),
        replace(scored, max_seeds=5),
        replace(gated, max_seeds=3),
    )
    name, half = "three seeds", {"days": SHORT}
    return [
        Ablation(name, "no signal", three_gated, gated, _two(**half)),
        Ablation(name, "20 % fail the checks", three_gated, gated, _two(**half, fails_checks=0.2)),
        Ablation(name, "30 % repaired, worse", three_gated, gated, _two(**half, damaged=0.3)),
        Ablation(name, "scorer", three, scored, _two(**half)),
        Ablation(name, "scorer, a month", three, scored, _two(days=MONTH)),
        Ablation(name, "scorer that knows nothing", three, scored, _two(**half, score_noise=50.0)),
        Ablation(name, "scorer, strict and lenient", three, scored, lambda a: replace(_mixed(a), **half)),
        Ablation(name, "scorer, drift over the day", three, scored, lambda a: replace(_drifting(a), **half)),
        Ablation(name, "scorer, cold start (2 days)", three, scored, _two(**COLD)),
        Ablation(name, "scorer, restart", three, scored, _two(**half, **RESTART)),
        Ablation(name, "scorer, one worker, 16 validators", three, scored, _scarce(*_ALIKE)),
        Ablation("five seeds, not three", "scorer", five, three, _two(**half)),
    ]  # fmt: skip


def _who_and_what(hand_in: Conduct) -> list[Ablation]:
    text_only = (WorkerModel(models=("text",)),) * 2
    one_does = (WorkerModel(), *text_only, WorkerModel(models=("text",)))
    hanging = (WorkerModel(hangs=0.03),) * 2
    give, holding = "give back what no worker does", replace(hand_in, unservable="hold")
    move, waiting = "move a stalled job", replace(hand_in, stalled="wait")
    return [
        Ablation(give, "text-only fleet", hand_in, holding, _two(workers=text_only)),
        Ablation(give, "one worker of four does images", hand_in, holding, _two(workers=one_does)),
        Ablation(move, "3 % of jobs hang", hand_in, waiting, _two(workers=hanging)),
        Ablation(move, "no job hangs", hand_in, waiting, _two()),
        Ablation(move, "3 % hang, one worker, 16 validators", hand_in, waiting,
                 _scarce(*_ALIKE, workers=(WorkerModel(job=25.0, hangs=0.03),))),
    ]  # fmt: skip


def _enhancement(hand_in: Conduct, gated: Conduct) -> list[Ablation]:
    refusing = {"workers": (WorkerModel(refuses_enhanced=0.1),) * 2}
    plain = replace(gated, max_seeds=3)
    fall_back, always = replace(plain, enhance="fall back"), replace(hand_in, enhance="always")
    return [
        Ablation("enhance, fall back", f"{gain:+.1f} of quality, 10 % refused", fall_back, plain,
                 _two(**refusing, enhanced_gain=gain))
        for gain in (-0.2, 0.0, 0.2)
    ] + [
        Ablation("enhance always", "+0.2 of quality, 10 % refused", always, hand_in,
                 _two(**refusing, enhanced_gain=0.2))
    ]  # fmt: skip


def _everything() -> list[Ablation]:
    ours, name = replace(Conduct(), scorer=True), "everything"
    hanging = (WorkerModel(hangs=0.03),) * 2
    troubled = {"workers": hanging, "fails_checks": 0.1, "days": SHORT}
    return [
        Ablation(name, "10 % fail, 3 % hang, scorer", ours, NAIVE, _two(**troubled)),
        Ablation(name, "the same without a scorer", Conduct(), NAIVE, _two(**troubled)),
        Ablation(name, "10 % fail, 3 % hang, scorer, a month", ours, NAIVE,
                 _two(**{**troubled, "days": MONTH})),
        Ablation(name, "scorer, strict and lenient", ours, NAIVE,
                 lambda a: replace(_mixed(a), **troubled)),
        Ablation(name, "scorer, drift over the day", ours, NAIVE,
                 lambda a: replace(_drifting(a), **troubled)),
        Ablation(name, "scorer, cold start (2 days)", ours, NAIVE, _two(**{**troubled, **COLD})),
        Ablation(name, "scorer, restart", ours, NAIVE, _two(**troubled, **RESTART)),
        Ablation(name, "no trouble, no scorer", Conduct(), NAIVE, _two(days=SHORT)),
    ]  # fmt: skip


def ablations() -> list[Ablation]:
    """Every decision of the miner."""
    hand_in, gated = _PLAIN, replace(_PLAIN, gate=True)
    scored = replace(gated, scorer=True)
    return [
        *_gate(hand_in, gated, scored),
        *_seeds(gated, scored),
        *_who_and_what(hand_in),
        *_enhancement(hand_in, gated),
        *_everything(),
    ]
