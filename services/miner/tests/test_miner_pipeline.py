"""One miner over real HTTP: the good way, and every way in which others fail it."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from miner_fakes import SPZ, report_of
from miner_harness import Harness
from sn17_contract.tasks import Signal
from sn17_miner.app import JOURNAL
from sn17_miner.core.learning import Learned
from sn17_miner.core.records import ResultSignal, ValidatorRecord
from sn17_miner.journal.journal import Journal
from sn17_protocol import ChainSnapshot, ImageTask, TextTask


async def test_from_pull_to_accepted(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    await harness.run()
    task = harness.task()
    assert (task.outcome, task.score, task.submits) == ("accepted", 0.8, 1)
    assert validator.outcomes() == ["accepted"]
    assert worker.asked[0]["prompt"] == "a red cube"
    assert harness.fixer.received == [worker.ply]
    assert list((harness.folder / "state" / "spool").iterdir()) == []
    assert [e.event for e in harness.events()] == [
        "pulled", "generate", "generated", "fixed", "gate: submit", "submit", "accepted",
    ]  # fmt: skip
    name = validator.hotkey[:8]
    assert (
        harness.metric("sn17_tasks_total", door="validators", validator=name, kind="text", outcome="accepted")
        == 1
    )
    assert harness.metric("sn17_registered", uid="0") == 1
    assert harness.metric("sn17_validator_uid", validator=name) == validator.uid


async def test_a_validator_that_hands_out_nothing_is_counted_from_zero(harness: Harness) -> None:
    await harness.worker()
    busy, idle = await harness.validator(), await harness.validator()
    busy.tasks.append(TextTask(type="text", id="t1", prompt="a red cube"))
    await harness.run()
    assert harness.service is not None
    value = harness.service.registry.get_sample_value
    of = {"door": "validators", "validator": idle.hotkey[:8], "kind": "text"}
    assert value("sn17_tasks_pulled_total", of) == 0
    assert value("sn17_tasks_total", {**of, "outcome": "accepted"}) == 0
    assert value("sn17_tasks_pulled_total", {**of, "validator": busy.hotkey[:8]}) == 1


async def test_an_image_task_reaches_the_worker_as_a_file(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.tasks.append(ImageTask(type="image", id="i1", prompt=base64.b64encode(b"PNG bytes").decode()))
    await harness.run()
    assert worker.asked[0]["image"] == b"PNG bytes"
    assert worker.asked[0]["prompt"] is None
    assert harness.task().outcome == "accepted"


async def test_an_image_task_goes_to_a_worker_that_does_images(harness: Harness) -> None:
    text = await harness.worker(models=("text",))
    both = await harness.worker(memory=1 << 29)
    validator = await harness.validator()
    validator.tasks.append(ImageTask(type="image", id="i1", prompt=base64.b64encode(b"PNG").decode()))
    await harness.run()
    assert (len(text.asked), len(both.asked)) == (0, 1)


async def test_the_free_worker_with_the_least_memory_goes_first(harness: Harness) -> None:
    full, empty = await harness.worker(memory=1 << 29), await harness.worker(memory=1 << 20)
    await harness.validator()
    await harness.run()
    assert (len(full.asked), len(empty.asked)) == (0, 1)


@pytest.mark.parametrize("state", ["warming", "draining", "refusing", "degraded"])
async def test_no_pull_without_a_healthy_worker(harness: Harness, state: str) -> None:
    worker, validator = await harness.worker(state=state), await harness.validator()
    with pytest.raises(TimeoutError):
        await harness.run(seconds=0.7)
    assert validator.pulls == []
    worker.state = "ready"
    await harness.run()
    assert validator.outcomes() == ["accepted"]


@pytest.mark.parametrize(
    "fault",
    ["busy", "memory_refused", "overloaded", "gpu_out_of_memory", "draining", "500", "garbage", "hang"],
)
async def test_a_worker_that_fails_loses_the_task_to_another(harness: Harness, fault: str) -> None:
    bad, good = await harness.worker(memory=1), await harness.worker(memory=2)
    bad.script.append(fault)
    await harness.validator()
    await harness.run()
    task = harness.task()
    assert task.outcome == "accepted"
    assert [a.state.value for a in task.attempts] == ["failed", "fixed"]
    assert task.attempts[0].seed == task.attempts[1].seed
    assert task.attempts[0].error
    assert sum(good.completed.values()) == 1
    if fault == "hang":
        assert bad.cancelled == [task.attempts[0].key]


@pytest.mark.parametrize("fault", ["reset", "half"])
async def test_a_broken_connection_is_joined_by_the_same_key(harness: Harness, fault: str) -> None:
    worker = await harness.worker()
    worker.script.append(fault)
    await harness.validator()
    await harness.run()
    assert [asked["key"] for asked in worker.asked] == [harness.task().attempts[0].key] * 2
    assert set(worker.completed.values()) == {1}
    assert harness.task().outcome == "accepted"


async def test_an_empty_structure_gets_another_seed(harness: Harness) -> None:
    worker = await harness.worker()
    worker.script.append("empty_structure")
    await harness.validator()
    await harness.run()
    assert len({asked["seed"] for asked in worker.asked}) == 2
    assert harness.task().outcome == "accepted"


async def test_seeds_are_bounded_and_the_validator_gets_an_empty_result(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    worker.script.extend(["empty_structure"] * 9)
    await harness.run()
    task = harness.task()
    assert (task.outcome, task.reason) == ("given_up", "empty_structure")
    assert len(worker.asked) == 3
    assert validator.submits[0].results == ""
    assert validator.outcomes() == ["skipped"]


async def test_a_refused_prompt_is_not_tried_elsewhere(harness: Harness) -> None:
    first, second = await harness.worker(), await harness.worker()
    first.script.append("bad_prompt")
    second.script.append("bad_prompt")
    await harness.validator()
    await harness.run()
    assert len(first.asked) + len(second.asked) == 1
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "bad_prompt")


async def test_an_image_that_is_no_base64_is_given_up_cheaply(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.tasks.append(ImageTask(type="image", id="i1", prompt="not base64!"))
    await harness.run()
    assert worker.asked == []
    assert harness.task().reason == "bad_prompt"


async def test_a_prompt_that_breaks_every_worker_is_given_up(harness: Harness) -> None:
    worker, _ = await harness.worker(), await harness.validator()
    worker.script.extend(["500"] * 9)
    await harness.run()
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "generation_failed")
    assert len(worker.asked) == 4


async def test_a_dead_worker_is_noticed_and_left(harness: Harness) -> None:
    dying, other = await harness.worker(memory=1, hold=True), await harness.worker(memory=2)
    await harness.validator()

    async def die(_: str) -> None:
        dying.boot_id = "boot-2"
        dying.current = None

    dying.on_generate = die
    await harness.run()
    assert sum(other.completed.values()) == 1
    assert harness.task().outcome == "accepted"


async def test_the_fixer_is_asked_again_and_a_bad_splat_generated_again(harness: Harness) -> None:
    worker = await harness.worker()
    await harness.validator()
    harness.fixer.script.extend([503, "reset", 422])
    await harness.run()
    assert len(harness.fixer.received) == 4
    assert len(worker.asked) == 2
    assert harness.task().outcome == "accepted"


async def test_no_worker_in_time_is_said_and_frees_the_validator(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()

    async def refuse(_: str) -> None:
        worker.state = "draining"

    worker.on_generate = refuse
    await harness.run(task_deadline_seconds=0.5)
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "no_worker")
    assert validator.outcomes() == ["skipped"]


# --- submissions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset", "500", "503"])
async def test_what_was_not_judged_is_sent_again_from_the_spool(harness: Harness, fault: str) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append(fault)
    await harness.run()
    assert validator.outcomes() == ["accepted"]
    assert len(worker.asked) == 1
    assert len(validator.submits) == 2
    assert validator.submits[0].results == validator.submits[1].results
    assert validator.submits[0].submit_time != validator.submits[1].submit_time
    assert validator.violations == 0


@pytest.mark.parametrize("fault", ["reset_after", "500_after", "slow_after"])
async def test_a_lost_answer_is_found_out_without_a_violation(harness: Harness, fault: str) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append(fault)
    await harness.run(tasks=2)
    second, first = harness.tasks()
    assert (first.outcome, first.reason) == ("given_up", "answer_lost")
    assert second.outcome == "accepted"
    assert validator.outcomes() == ["accepted", "accepted"]
    assert validator.violations == 0
    assert len(worker.asked) == 2


async def test_the_lock_is_waited_out(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append("lock")
    await harness.run()
    assert validator.outcomes() == ["accepted"]
    assert len(validator.pulls) == 1


async def test_two_locks_in_a_row_make_it_ask_which_task(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.extend(["lock", "lock"])
    await harness.run()
    assert validator.outcomes() == ["accepted"]
    assert len(validator.pulls) == 2
    assert "asked which task" in [event.event for event in harness.events()]


async def test_another_task_in_our_place_is_taken_over(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append("other")
    await harness.run(tasks=2)
    second, first = harness.tasks()
    assert (first.outcome, first.reason) == ("given_up", "validator_dropped")
    assert second.outcome == "accepted"
    assert second.prompt == "another task"


async def test_a_skip_that_nobody_wants_keeps_its_own_reason(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    worker.script.append("bad_prompt")
    validator.submit_script.append("other")
    await harness.run(tasks=2)
    second, first = harness.tasks()
    assert (first.outcome, first.reason) == ("given_up", "bad_prompt")
    assert second.outcome == "accepted"


async def test_with_a_result_in_hand_it_does_not_wait_for_a_worker(harness: Harness) -> None:
    """Another seed would be worth it, but the worker refuses after all: the first result goes out."""
    worker, validator = await harness.worker(), await harness.validator()
    harness.scorer.scores.clear()
    harness.scorer.scores.append(0.62)

    async def refuse(_: str) -> None:
        if len(worker.asked) == 2:
            worker.state = "draining"

    worker.on_generate = refuse
    await harness.common()
    await harness.run(gate__scorer_url=harness.scorer.url, task_deadline_seconds=300)
    assert len(worker.asked) == 2
    assert harness.task().outcome == "accepted"
    assert [attempt.state.value for attempt in harness.task().attempts] == ["fixed", "failed"]
    assert validator.outcomes() == ["accepted"]


async def test_a_dropped_task_is_counted_and_the_next_one_pulled(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append("drop")
    await harness.run(tasks=2)
    second, first = harness.tasks()
    assert (first.outcome, first.reason) == ("given_up", "validator_dropped")
    assert second.outcome == "accepted"


async def test_refused_for_its_nonce_it_tries_with_a_new_one(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append("401")
    await harness.run()
    assert validator.outcomes() == ["accepted"]


async def test_a_validator_that_is_gone_keeps_the_payload_waiting(harness: Harness) -> None:
    worker, validator = await harness.worker(hold=True), await harness.validator()

    async def leave(_: str) -> None:
        await validator.stop()

    worker.on_generate = leave
    worker.go.set()
    with pytest.raises(TimeoutError):
        await harness.run(seconds=1.5)
    task = harness.task()
    assert task.state.value == "submitting"
    assert len(list((harness.folder / "state" / "spool").iterdir())) == 1
    worker.on_generate = None
    await validator.start()
    await harness.run()
    assert len(worker.completed) == len(worker.asked)


async def test_a_validator_that_never_comes_back_is_given_up(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()

    async def leave(_: str) -> None:
        await validator.stop()

    worker.on_generate = leave
    await harness.run(submit_deadline_seconds=1)
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "validator_unreachable")


async def test_a_validator_that_left_the_chain_is_given_up_long_before_the_deadline(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()

    async def leave(_: str) -> None:
        del harness.chain.neurons[1:]
        await validator.stop()

    worker.on_generate = leave
    await harness.run(chain__interval_seconds=0.2)
    task = harness.task()
    assert (task.outcome, task.reason) == ("given_up", "validator_unreachable")
    assert task.submits == 6


@pytest.mark.parametrize("step", ["reject", "unvalidated"])
async def test_bad_news_is_obeyed(harness: Harness, step: str) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.append(step)
    await harness.run(tasks=2)
    assert [task.outcome for task in reversed(harness.tasks())] == [
        {"reject": "rejected"}.get(step, step), "accepted",
    ]  # fmt: skip
    assert validator.violations == 0


# --- pulls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "reset", "reset_after", "none", "slow"])
async def test_a_failed_pull_is_repeated_and_loses_nothing(harness: Harness, fault: str) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.pull_script.append(fault)
    await harness.run()
    assert validator.outcomes() == ["accepted"]
    assert len(worker.asked) == 1
    assert len(validator.pulls) == 2


async def test_unregistered_is_not_obeyed_for_an_hour(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    validator.pull_script.append("unregistered")
    await harness.run(time_scale=0.001)
    assert validator.outcomes() == ["accepted"]
    assert validator.violations == 0


async def test_cooldowns_end_on_the_spot(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    await harness.run(tasks=3)
    assert validator.violations == 0
    assert len(validator.pulls) == 3
    name = validator.hotkey[:8]
    assert harness.metric("sn17_cooldown_idle_seconds_count", validator=name) == 2
    assert harness.metric("sn17_cooldown_idle_seconds_sum", validator=name) / 2 < 0.5


async def test_a_validator_whose_clock_is_behind_gets_at_most_one_early_pull(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator(clock_shift=-5.0)
    validator.nonces._clock = lambda: int((time.time() - 5) * 1e9)
    await harness.run(tasks=2, seconds=60)
    assert validator.violations == 0
    assert -7.5 < harness.metric("sn17_clock_skew_seconds") < -3.5


async def test_a_second_life_of_someone_in_our_name_is_survived(harness: Harness) -> None:
    """Anyone registered can pull in our name: the violation is counted and the cooldown obeyed."""
    _, validator = await harness.worker(), await harness.validator()
    validator.cooldown_until = int(time.time()) + 2
    await harness.run()
    assert validator.outcomes() == ["accepted"]
    assert harness.metric("sn17_cooldown_violations_total", validator=validator.hotkey[:8]) == 1


async def test_a_violation_told_from_below_zero_is_still_one(harness: Harness) -> None:
    """Every good submission takes one violation back: the count may be zero or less in the answer."""
    _, validator = await harness.worker(), await harness.validator(violations=-1)
    validator.cooldown_until = int(time.time()) + 2
    await harness.run()
    assert len(validator.pulls) == 2
    assert harness.metric("sn17_cooldown_violations_total", validator=validator.hotkey[:8]) == 1


async def test_many_validators_share_few_workers(harness: Harness) -> None:
    await harness.worker()
    await harness.worker()
    validators = [await harness.validator(cooldown=0.5, throttle=0) for _ in range(5)]
    await harness.run(tasks=15)
    assert all(validator.violations == 0 for validator in validators)
    assert all(len(validator.judged) >= 1 for validator in validators)
    assert sum(len(validator.judged) for validator in validators) == 15
    assert all(max(worker.completed.values()) == 1 for worker in harness.workers)


async def test_an_unregistered_miner_does_not_pull(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    harness.keypair = validator.keypair
    with pytest.raises(TimeoutError):
        await harness.run(seconds=1)
    assert validator.pulls == []


class Broken:
    """A chain source with a bug: it raises what nobody expects, once."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.calls = 0

    async def read(self) -> ChainSnapshot:
        self.calls += 1
        if self.calls == 1:
            raise ZeroDivisionError("a bug")
        neurons = tuple(self.harness.chain.neurons)
        return ChainSnapshot(netuid=17, block=1, taken_at=time.time(), neurons=neurons)

    async def close(self) -> None:
        pass


async def test_a_part_that_fails_unexpectedly_is_started_again(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    await harness.run(source=Broken(harness))
    assert validator.outcomes() == ["accepted"]
    assert harness.metric("sn17_internal_errors_total", where="background") == 1


@pytest.mark.parametrize(("kind", "script"), [("ply", "fix"), ("spz", "submit")])
async def test_a_payload_that_vanished_is_generated_again(harness: Harness, kind: str, script: str) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    spool = harness.folder / "state" / "spool"
    vanished: list[str] = []

    async def vanish(_: str) -> None:
        for path in list(spool.glob(f"*.{kind}")) if not vanished else []:
            vanished.append(path.name)
            path.unlink()

    if script == "fix":
        harness.fixer.on_fix = vanish
        harness.fixer.script.append(503)
    else:
        validator.on_call = vanish
        validator.submit_script.append("lock")
    await harness.run()
    assert vanished == [f"1.1.{kind}"]
    assert validator.outcomes() == ["accepted"]
    assert len({asked["key"] for asked in worker.asked}) == 2
    attempt = harness.task().attempts[0]
    assert (attempt.failure, attempt.error) == ("lost", f"payload 1.1.{kind} is gone from the spool")


async def test_a_task_that_fails_unexpectedly_is_resumed(harness: Harness) -> None:
    """The spool turns into a file: no payload can be written until a person repairs it."""
    _, validator = await harness.worker(), await harness.validator()
    spool = harness.folder / "state" / "spool"

    async def spoil(_: str) -> None:
        validator.on_call = None
        spool.rmdir()
        spool.write_text("not a folder")

    validator.on_call = spoil
    with pytest.raises(TimeoutError):
        await harness.run(seconds=2.5)
    assert harness.metric("sn17_internal_errors_total", where="task") >= 1
    assert "internal error" in [event.event for event in harness.events()]
    spool.unlink()
    await harness.run()
    assert set(validator.outcomes()) == {"accepted"}
    assert harness.tasks()[-1].outcome == "accepted"


async def test_a_hostile_task_id_stays_harmless(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.tasks.append(TextTask(id="../../x\r\nEvil: 1", prompt="a red cube"))
    await harness.run()
    assert harness.task().outcome == "accepted"
    assert "/" not in worker.asked[0]["key"].rsplit("/", 1)[0]


# --- the wire -------------------------------------------------------------------------------------


async def test_a_change_of_the_wire_that_decides_nothing_is_ignored(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()

    def tomorrow(answer: dict[str, Any]) -> None:
        answer |= {"throttle_period": {"seconds": 1}, "validation_threshold": "high", "axon": 7, "new": [1]}
        if answer.get("feedback"):
            del answer["results"], answer["signature"]
            answer["feedback"] |= {"current_duel_rating": None, "generations_within_the_window": "many"}

    validator.edit = tomorrow
    await harness.run()
    assert (harness.task().outcome, harness.task().score) == ("accepted", 0.8)


async def test_answers_that_cannot_be_read_three_times_are_a_warning_that_names_the_field(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    _, validator = await harness.worker(), await harness.validator()

    def renamed(answer: dict[str, Any]) -> None:
        if len(validator.pulls) <= 3 and answer.get("task"):
            answer["task"]["text"] = answer["task"].pop("prompt")

    validator.edit = renamed
    await harness.run()
    warnings = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("3 answers in a row")
    assert "task.prompt" in warnings[0]
    assert harness.task().outcome == "accepted"


# --- prompts --------------------------------------------------------------------------------------

ENHANCED = {"enhance__text_validators": "*", "enhance__text_template": "{prompt}, centered"}


async def test_an_enhanced_prompt_that_a_worker_refuses_gives_way_to_the_original(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    worker.script.append("bad_prompt")
    await harness.run(**ENHANCED)
    assert [asked["prompt"] for asked in worker.asked] == ["a red cube, centered", "a red cube"]
    assert (harness.task().outcome, validator.outcomes()) == ("accepted", ["accepted"])
    assert [attempt.enhanced for attempt in harness.task().attempts] == [True, False]
    name = validator.hotkey[:8]
    assert (
        harness.metric("sn17_tasks_enhanced_total", validator=name, enhancement="none", outcome="accepted")
        == 1
    )


async def test_the_last_seed_gets_the_original_prompt(harness: Harness) -> None:
    worker, _ = await harness.worker(), await harness.validator()
    worker.script.extend(["empty_structure"] * 2)
    await harness.run(**ENHANCED)
    assert [asked["prompt"] for asked in worker.asked] == ["a red cube, centered"] * 2 + ["a red cube"]
    assert harness.task().outcome == "accepted"


async def test_a_prompt_that_is_refused_as_it_came_is_given_up(harness: Harness) -> None:
    worker, _ = await harness.worker(), await harness.validator()
    worker.script.extend(["bad_prompt"] * 9)
    await harness.run(**ENHANCED)
    assert len(worker.asked) == 2
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "bad_prompt")


async def test_an_image_task_of_a_text_fleet_is_handed_back_at_once(harness: Harness) -> None:
    """Held until its deadline it would cost twice its cooldown."""
    text, validator = await harness.worker(models=("text",)), await harness.validator()
    validator.tasks.append(ImageTask(type="image", id="i1", prompt=base64.b64encode(b"PNG").decode()))
    await harness.run(2, seconds=20.0)
    first, second = sorted(harness.tasks(), key=lambda task: task.n)
    assert (first.outcome, first.reason) == ("given_up", "no_worker")
    assert first.finished_at is not None
    assert first.finished_at - first.pulled_at < 2.0
    assert second.outcome == "accepted"
    assert validator.outcomes() == ["skipped", "accepted"]
    assert len(text.asked) == 1
    assert any("known workers does image tasks" in event.detail for event in harness.events(first.n))


@pytest.mark.parametrize("kind", ["text", "image"])
async def test_a_task_waits_for_the_only_worker_while_that_loads_its_models(
    harness: Harness, kind: str
) -> None:
    """It was given up within milliseconds: a worker that loads names no models."""
    worker, validator = await harness.worker(), await harness.validator()
    if kind == "image":
        validator.tasks.append(ImageTask(type="image", id="i1", prompt=base64.b64encode(b"PNG").decode()))
    worker.script.append("restart")
    await harness.run()
    assert (harness.task().outcome, harness.task().reason) == ("accepted", None)
    assert validator.outcomes() == ["accepted"]


@pytest.mark.parametrize("prompt", ["data:image/png;base64,UE5H", "UE5H\n", "UE5H====", "_-8"])
async def test_an_image_in_another_dialect_of_base64_reaches_the_worker(
    harness: Harness, prompt: str
) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    validator.tasks.append(ImageTask(type="image", id="i1", prompt=prompt))
    await harness.run()
    assert worker.asked[0]["image"] in (b"PNG", b"\xff\xef")
    assert harness.task().outcome == "accepted"


# --- gate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [["reset"], ["500", "lock"], []])
async def test_a_result_accepted_before_its_repetition_arrived_is_accepted(
    harness: Harness, before: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its zeros and cooldown look like a rejection; booked as one, the gate would learn the opposite."""
    _, validator = await harness.worker(), await harness.validator()
    validator.submit_script.extend([*before, "repeat"])
    miner = await harness.run()
    assert (harness.task().outcome, harness.task().score) == ("accepted", None)
    assert validator.outcomes() == ["accepted"]
    learned = miner.context.scheduler.lanes[validator.hotkey].learned
    assert learned.accepted == learned.judged == 1.0
    assert ("another miner works with this hotkey" in caplog.text) == (before == [])


async def test_what_fails_the_checks_is_tried_with_other_seeds_then_skipped_for_free(
    harness: Harness,
) -> None:
    """At a validator that has rejected five of them in a row, so that a try to learn is far off."""
    worker, validator = await harness.worker(), await harness.validator()
    learned = Learned.fresh(harness.settings().policy())
    for _ in range(5):
        learned.evidence.judged(Signal.FAILS_CHECKS, accepted=False, now=time.time())
    journal, neuron = Journal(harness.state() / JOURNAL), validator.neuron
    journal.save_validator(
        ValidatorRecord(neuron.hotkey, neuron.uid, neuron.ip, neuron.port, neuron.stake, 0.0, learned.dump())
    )
    journal.close()
    harness.fixer.report = report_of("repaired", gates_pass=False)
    await harness.run()
    assert len({asked["seed"] for asked in worker.asked}) == 3
    assert harness.task().outcome == "skipped"
    assert validator.submits[0].results == ""
    assert any("a rejection costs 6 s" in event.detail for event in harness.events())


async def test_splats_beyond_repair_are_given_up_by_that_name(harness: Harness) -> None:
    await harness.worker()
    await harness.validator()
    harness.fixer.report = report_of("unrepairable", gates_pass=False)
    await harness.run()
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "unrepairable")


INCOMPLETE = '{"schema": "sn17.fixer/v1", "verdict": "healthy", "gates_pass": true}'


@pytest.mark.parametrize("report", ["no report", "{}", "not JSON", INCOMPLETE])
async def test_an_answer_without_a_complete_report_is_a_busy_fixer(harness: Harness, report: str) -> None:
    """A proxy that drops or cuts the header must not turn every splat into a healthy one."""
    await harness.worker()
    await harness.validator()
    harness.fixer.script.append(report)
    harness.fixer.report = report_of("unrepairable", gates_pass=False)
    await harness.run()
    busy = [event.detail for event in harness.events() if event.event == "fixer busy"]
    assert len(busy) == 1
    assert "SN17-Report" in busy[0]
    assert (harness.task().outcome, harness.task().reason) == ("given_up", "unrepairable")


async def test_the_best_seed_is_submitted(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    harness.scorer.scores.extend([0.3, 0.95])
    harness.scorer.scores.popleft()
    await harness.common()
    await harness.run(gate__scorer_url=harness.scorer.url)
    task = harness.task()
    assert [attempt.signal for attempt in task.attempts] == [
        ResultSignal(Signal.SCORE, 0.30),
        ResultSignal(Signal.SCORE, 0.95),
    ]
    assert task.submitted_attempt == 2
    path, body = harness.scorer.asked[0]
    assert path == "/validate_txt_to_3d_ply/"
    assert (body["prompt"], body["compression"], base64.b64decode(body["data"])) == ("a red cube", 2, SPZ)
    assert validator.outcomes() == ["accepted"]


async def test_without_a_score_the_fixer_decides(harness: Harness) -> None:
    _, validator = await harness.worker(), await harness.validator()
    harness.scorer.scores[0] = "broken"
    await harness.common()
    await harness.run(gate__scorer_url=harness.scorer.url)
    assert validator.outcomes() == ["accepted"]
    assert "no score" in [event.event for event in harness.events()]


# --- prompts --------------------------------------------------------------------------------------


async def test_an_enhanced_prompt_goes_to_the_worker_and_the_original_is_signed(harness: Harness) -> None:
    worker, validator = await harness.worker(), await harness.validator()
    await harness.run(enhance__text_validators="*")
    assert worker.asked[0]["prompt"] == "a red cube, single complete object, centered"
    assert validator.outcomes() == ["accepted"]
    task = harness.task()
    assert (task.prompt, task.enhancement) == ("a red cube", "text")
    name = validator.hotkey[:8]
    assert (
        harness.metric("sn17_tasks_enhanced_total", validator=name, enhancement="text", outcome="accepted")
        == 1
    )


async def test_enhancement_is_off_for_validators_that_are_not_named(harness: Harness) -> None:
    worker, _ = await harness.worker(), await harness.validator()
    await harness.run(enhance__text_validators="someone-else")
    assert worker.asked[0]["prompt"] == "a red cube"
