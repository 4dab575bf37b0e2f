"""The miner's standing on the subnet, and what endangers it."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.model import (
    VALIDATORS_DOOR,
    Board,
    ColourStep,
    Panel,
    Query,
    increase,
    quantile,
    selected,
)

GATEWAYS = VALIDATORS_DOOR.replace("=", "!=")

NETWORK = Board(
    name="network",
    title="sn17 / Network standing",
    text="Registration, emission, and the clocks and cooldowns that guard them.",
    panels=(
        Panel(
            "Registered",
            "1 while the chain lists the hotkey.",
            "none",
            (Query(f"max({selected(Metric.REGISTERED)})", "registered"),),
            kind="number",
            base="red",
            steps=(ColourStep(1, "green"),),
            width=5,
            height=5,
        ),
        Panel(
            "Incentive",
            "This miner's share of the subnet's incentive.",
            "none",
            (Query(f"max({selected(Metric.INCENTIVE)})", "share"),),
            kind="number",
            width=5,
            height=5,
        ),
        Panel(
            "Miners pruned before this one",
            "How many lose their place before this miner; 0 is the next to go.",
            "none",
            (Query(f"max({selected(Metric.PRUNE_POSITION)})", "miners"),),
            kind="number",
            base="red",
            steps=(ColourStep(5, "yellow"), ColourStep(20, "green")),
            width=5,
            height=5,
        ),
        Panel(
            "Blocks of immunity left",
            "A new registration cannot be pruned before they are over.",
            "none",
            (Query(f"max({selected(Metric.IMMUNITY_BLOCKS_LEFT)})", "blocks"),),
            kind="number",
            width=5,
            height=5,
        ),
        Panel(
            "Registration price",
            "What a new place would cost, in TAO.",
            "none",
            (Query(f"max({selected(Metric.BURN_PRICE)})", "TAO"),),
            kind="number",
            width=4,
            height=5,
        ),
        Panel(
            "Emission",
            "Of one epoch, as the chain states it.",
            "none",
            (Query(f"max({selected(Metric.EMISSION)})", "emission"),),
        ),
        Panel(
            "Age of the chain snapshot",
            "Read every 10 min; the miner goes on with an old one and says so.",
            "s",
            (Query(f"max({selected(Metric.CHAIN_SNAPSHOT_AGE)})", "age"),),
            base="green",
            steps=(ColourStep(1800, "yellow"), ColourStep(3600, "red")),
        ),
        Panel(
            "Scores of accepted tasks",
            "The median of the window.",
            "none",
            (Query(quantile(0.5, Metric.TASK_SCORE, "validator"), "{{validator}}"),),
            maximum=1,
        ),
        Panel(
            "Clock skew",
            "Against the validators' clocks. A few seconds slow, and every request is refused.",
            "s",
            (Query(f"max by (pod) ({selected(Metric.CLOCK_SKEW)})", "{{pod}}"),),
            minimum=None,
        ),
        Panel(
            "Cooldown violations",
            "Pulls that came too early. The first hundred cost nothing, each further one 10 s.",
            "short",
            (
                Query(
                    f"sum by (validator) ({increase(f'{Metric.COOLDOWN_VIOLATIONS}_total')})",
                    "{{validator}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Until the next pull",
            "Seconds until a validator may be asked again; below zero it could be asked now.",
            "s",
            (Query(f"max by (validator) ({selected(Metric.NEXT_PULL)}) - time()", "{{validator}}"),),
            minimum=None,
        ),
        Panel(
            "Idle after a cooldown",
            "From the end of a cooldown to the next pull while a worker was free.",
            "s",
            (
                Query(quantile(0.5, Metric.COOLDOWN_IDLE, "validator"), "{{validator}} p50"),
                Query(quantile(0.95, Metric.COOLDOWN_IDLE, "validator"), "{{validator}} p95"),
            ),
            base="green",
            steps=(ColourStep(1, "yellow"), ColourStep(5, "red")),
        ),
        Panel(
            "Tasks in the journal",
            "By state; open ones are resumed after a restart.",
            "short",
            (Query(f"sum by (state) ({selected(Metric.JOURNAL_TASKS)})", "{{state}}"),),
        ),
        Panel(
            "Given up",
            "By door and reason.",
            "short",
            (
                Query(
                    f"sum by (door, reason) ({increase(f'{Metric.GIVEN_UP}_total')}) > 0",
                    "{{door}}: {{reason}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Tasks under way by door",
            "Validators, and each gateway by its name. Weights decide where all of them have tasks.",
            "short",
            (Query(f"sum by (door) ({selected(Metric.OPEN_TASKS)})", "{{door}}"),),
        ),
        Panel(
            "Gateways' tasks by outcome",
            "Accepted: the gateway has stored the result. These count in no success of the subnet.",
            "short",
            (
                Query(
                    f"sum by (door, outcome) ({increase(f'{Metric.TASKS}_total', GATEWAYS)}) > 0",
                    "{{door}}: {{outcome}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Generations by lane",
            "The fast lane is asked for where a deadline would be missed, and only if it is switched on.",
            "short",
            (Query(f"sum by (door, lane) ({increase(f'{Metric.TASK_LANES}_total')})", "{{door}}: {{lane}}"),),
            kind="bars",
        ),
    ),
)
