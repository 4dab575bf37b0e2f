"""The ledger against a second telling of the rules: a table of what each call does."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sn17_devnet.ledger import Ledger
from sn17_devnet.tasks import SceneTask
from sn17_devnet.validator_state import Rules, UnknownMinerError, Validation, ValidatorState, Verdict
from sn17_protocol import TextTask
from sn17_protocol.signing import ResultSignatureError

MINERS = {2: "miner-a", 3: "miner-b"}
START = 1_000_000.25


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


class Bench:
    """ValidatorState with a clock to turn and tasks that count up."""

    def __init__(self, rules=None):
        self.clock = Clock()
        self.ledger = Ledger()
        self.made = 0
        self.state = ValidatorState(rules or Rules(), self.clock, self.next_task, self.ledger)
        self.state.sync(MINERS)

    def next_task(self):
        self.made += 1
        return SceneTask(TextTask(id=f"task-{self.made}", prompt=f"prompt {self.made}"), "a red cube")

    def pull(self, hotkey="miner-a"):
        return self.state.pull(hotkey)

    def submit(self, task_id, hotkey="miner-a", *, empty=False, signed=True):
        return self.state.submit(hotkey, task_id, empty=empty, verify=lambda prompt: signed)

    def deliver(self, hotkey="miner-a", score=0.8, after=10.0):
        """Pull, wait, submit, settle."""
        task = self.pull(hotkey).task
        self.clock.now += after
        return self.state.settle(self.submit(task.id, hotkey), Verdict(score))

    @property
    def last(self):
        return list(self.ledger.records.values())[-1]


@pytest.fixture
def bench():
    return Bench()


def test_an_unknown_hotkey_is_told_to_wait_an_hour(bench):
    answer = bench.pull("stranger")
    assert (answer.task, answer.cooldown_until) == (None, int(START + 3600))
    assert bench.state.pull(None).task is None
    assert bench.made == 0


def test_the_same_task_comes_again_with_its_first_time(bench):
    first = bench.pull().task
    bench.clock.now += 1000
    assert bench.pull().task == first
    assert bench.last.reissued == 1
    assert bench.last.assigned_at == START


@pytest.mark.parametrize(
    ("after", "end"),
    [(0.7, START + 300), (30.0, START + 300), (34.0, START + 34 + 270), (120.0, START + 120 + 270)],
)
def test_a_slow_delivery_costs_what_is_over_thirty_seconds(bench, after, end):
    assert bench.deliver(after=after).cooldown_until == int(end)


def test_an_accepted_result_counts(bench):
    answer = bench.deliver(score=0.8)
    assert answer.feedback.task_fidelity_score == 0.8
    assert answer.feedback.average_fidelity_score == pytest.approx(0.95 + 0.05 * 0.8)
    assert answer.feedback.generations_within_the_window == 1
    assert answer.feedback.current_miner_reward == 1500.0
    assert bench.state.reward("miner-a") == 1500.0
    assert (bench.last.outcome, bench.last.score) == ("accepted", 0.8)


def test_a_score_above_one_is_told_as_one(bench):
    assert bench.deliver(score=1.02).feedback.task_fidelity_score == 1.0


def test_a_low_score_is_not_told_but_costs(bench):
    answer = bench.deliver(score=0.59)
    assert answer.feedback.task_fidelity_score == 0.0
    assert answer.feedback.validation_failed is False
    assert answer.feedback.average_fidelity_score == 1.0
    assert answer.cooldown_until == int(START + 900)
    assert (bench.last.outcome, bench.last.score) == ("rejected", 0.59)


def test_the_threshold_itself_passes(bench):
    assert bench.deliver(score=0.6).feedback.task_fidelity_score == 0.6


def test_an_empty_result_is_free(bench):
    answer = bench.submit(bench.pull().task.id, empty=True)
    assert answer.cooldown_until == int(START + 300)
    assert bench.last.outcome == "skipped"


def test_a_failed_validation_is_free(bench):
    validation = bench.submit(bench.pull().task.id)
    answer = bench.state.settle(validation, Verdict(failed=True, reason="down"))
    assert answer.feedback.validation_failed is True
    assert answer.cooldown_until == int(START + 300)
    assert (bench.last.outcome, bench.last.reason) == ("unvalidated", "down")


def test_a_wrong_signature_costs_and_takes_the_task(bench):
    answer = bench.submit(bench.pull().task.id, signed=False)
    assert answer.cooldown_until == int(START + 900)
    assert bench.state.refusal("miner-a") is not None
    assert (bench.last.outcome, bench.last.reason) == ("rejected", "signature")


def test_a_malformed_signature_changes_nothing(bench):
    task = bench.pull().task

    def verify(prompt):
        raise ResultSignatureError("short")

    with pytest.raises(ResultSignatureError):
        bench.state.submit("miner-a", task.id, empty=False, verify=verify)
    assert bench.pull().task == task
    assert bench.last.outcome == "open"


def test_the_signature_is_held_against_the_validators_own_prompt(bench):
    task = bench.pull().task
    asked = []
    bench.state.submit("miner-a", task.id, empty=True, verify=lambda prompt: asked.append(prompt) or True)
    assert asked == [task.prompt]


def test_another_task_id_changes_nothing(bench):
    bench.pull()
    answer = bench.submit("other")
    assert answer.cooldown_until == 0
    assert answer.feedback.task_fidelity_score == 0.0
    assert bench.last.outcome == "open"


def test_a_second_submission_within_thirty_seconds_waits(bench):
    task = bench.pull().task
    assert isinstance(bench.submit(task.id), Validation)
    bench.clock.now += 29.9
    answer = bench.submit(task.id)
    assert not isinstance(answer, Validation)
    assert answer.cooldown_until == 0
    assert bench.last.locked == 1
    bench.clock.now += 0.2
    assert isinstance(bench.submit(task.id), Validation)


def test_a_pull_during_validation_gives_the_same_task(bench):
    task = bench.pull().task
    validation = bench.submit(task.id)
    assert bench.pull().task == task
    bench.state.settle(validation, Verdict(0.9))
    assert bench.pull().task is None


def test_the_second_of_two_validations_of_one_task_counts_nothing(bench):
    task = bench.pull().task
    first = bench.submit(task.id)
    bench.clock.now += 31
    second = bench.submit(task.id)
    accepted = bench.state.settle(first, Verdict(0.9))
    bench.clock.now += 1
    again = bench.state.settle(second, Verdict(0.9))
    assert again.feedback.task_fidelity_score == 0.0
    assert again.cooldown_until == accepted.cooldown_until
    assert again.feedback.generations_within_the_window == 1


def test_a_validation_that_ends_after_the_next_task_began_leaves_that_task(bench):
    task = bench.pull().task
    late = bench.submit(task.id)
    bench.submit(task.id, signed=False)
    bench.clock.now += 1000
    following = bench.pull().task
    bench.state.settle(late, Verdict(0.0))
    bench.clock.now += 1000
    assert bench.pull().task == following


def test_submissions_of_strangers_and_the_idle_are_turned_away(bench):
    assert "not registered" in bench.state.refusal("stranger")
    assert "not registered" in bench.state.refusal(None)
    assert "no task assigned" in bench.state.refusal("miner-a")
    bench.pull()
    assert bench.state.refusal("miner-a") is None
    with pytest.raises(UnknownMinerError):
        bench.submit("x", "stranger")


def test_a_hundred_violations_are_free_the_next_cost_ten_seconds_each(bench):
    until = bench.deliver().cooldown_until
    for _ in range(101):
        answer = bench.pull()
    # The submission itself had taken one off.
    assert (answer.violations, answer.cooldown_until) == (100, until)
    assert bench.pull().cooldown_until == until + 10
    assert bench.pull().cooldown_until == until + 20
    assert bench.ledger.violations["miner-a"] == 103


def test_pulling_at_the_end_of_the_cooldown_is_no_violation(bench):
    bench.clock.now = float(bench.deliver().cooldown_until)
    assert bench.pull().task is not None
    assert bench.ledger.violations.total() == 0


def test_the_reward_forgets_after_four_hours(bench):
    bench.deliver()
    bench.clock.now += 4 * 3600 - 1
    assert bench.state.reward("miner-a") == 1500.0
    bench.clock.now += 2
    assert bench.state.reward("miner-a") == 0.0
    assert bench.state.reward("stranger") == 0.0


def test_a_newcomer_is_known_only_after_a_sync(bench):
    assert bench.pull("newcomer").task is None
    bench.state.sync(MINERS | {4: "newcomer"})
    assert bench.pull("newcomer").task is not None


def test_a_uid_that_changes_hands_keeps_its_task_and_forgets_the_rest(bench):
    bench.deliver()
    bench.clock.now += 600
    task = bench.pull().task
    bench.state.sync({2: "heir", 3: "miner-b"})
    assert bench.pull("miner-a").cooldown_until > bench.clock.now
    assert bench.pull("heir").task == task
    answer = bench.submit(task.id, "heir", empty=True)
    assert answer.feedback.average_fidelity_score == 1.0
    assert answer.feedback.generations_within_the_window == 0


def test_a_restart_forgets_what_was_not_saved(bench):
    bench.deliver()
    bench.clock.now += 600
    saved = bench.state.dump()
    lost = bench.pull().task
    fresh = ValidatorState(Rules(), bench.clock, bench.next_task, bench.ledger)
    fresh.load(saved)
    assert fresh.refusal("miner-a") is not None
    assert [r.outcome for r in bench.ledger.records.values()] == ["accepted", "dropped"]
    assert fresh.pull("miner-a").task != lost
    assert fresh.reward("miner-a") == 1500.0


def test_a_restart_brings_a_finished_task_back(bench):
    """The validator saved it while it was open: the miner gets it again, and may earn it twice."""
    task = bench.pull().task
    saved = bench.state.dump()
    bench.state.settle(bench.submit(task.id), Verdict(0.9))
    fresh = ValidatorState(Rules(), bench.clock, bench.next_task, bench.ledger)
    fresh.load(saved)
    assert fresh.pull("miner-a").task == task
    assert [r.outcome for r in bench.ledger.records.values()] == ["accepted", "open"]


def test_scaled_rules_scale_every_time_and_nothing_else():
    rules, scaled = Rules(), Rules().scaled(0.01)
    assert scaled.task_cooldown == 3.0
    assert scaled.violations_threshold == rules.violations_threshold
    assert scaled.quality_threshold == rules.quality_threshold
    assert scaled.fidelity_weight == rules.fidelity_weight
    assert (scaled.sync_interval, scaled.reward_window) == (6.0, 144.0)


def test_the_ledger_is_bounded():
    bench = Bench()
    bench.ledger.capacity = 5
    for _ in range(20):
        bench.deliver()
        bench.clock.now += 1000
    assert len(bench.ledger.records) == 5


# --- every order of calls, against a table -------------------------------------------------------------


MOSTLY = st.sampled_from([True, True, True, False])


class Table:
    """One miner's fate by the published rules, in the plainest words."""

    def __init__(self):
        self.task = None
        self.since = 0.0
        self.until = 0
        self.violations = 0
        self.fidelity = 1.0
        self.accepted = []
        self.attempt = -math.inf

    def cool(self, now, length):
        self.cool_late(now, length, self.since)
        self.task = None

    def cool_late(self, now, length, since):
        self.until = int(max(now + length - 30, since + length))


class EveryOrder(RuleBasedStateMachine):
    """Random calls in random order at random times: the ledger do what the table says."""

    hotkeys = st.sampled_from(sorted(MINERS.values()))

    def __init__(self):
        super().__init__()
        self.bench = Bench()
        self.tables = {hotkey: Table() for hotkey in MINERS.values()}
        self.running = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 29.0, 31.0, 100.0, 269.0, 300.0, 601.0, 5000.0]))
    def wait(self, seconds):
        self.bench.clock.now += seconds

    @rule(hotkey=hotkeys)
    def wait_for_the_cooldown(self, hotkey):
        self.bench.clock.now = max(self.bench.clock.now, float(self.tables[hotkey].until))

    @rule(hotkey=hotkeys, score=st.sampled_from([0.6, 1.1]))
    def deliver(self, hotkey, score):
        """A whole round, which chance alone seldom makes."""
        self.wait_for_the_cooldown(hotkey)
        self.pull(hotkey, 1)
        before = len(self.running)
        self.submit(hotkey, True, True, False)
        if len(self.running) > before:
            self.settle(before, score, False)

    @rule(hotkey=hotkeys, times=st.sampled_from([1, 1, 1, 60]))
    def pull(self, hotkey, times):
        table, now = self.tables[hotkey], self.bench.clock.now
        for _ in range(times):
            answer = self.bench.pull(hotkey)
            if now < table.until:
                table.violations += 1
                table.until += 10 if table.violations > 100 else 0
                assert (answer.task, answer.cooldown_until) == (None, table.until)
                assert answer.violations == table.violations
            else:
                assert answer.task is not None
                assert table.task in (None, answer.task.id)
                if table.task is None:
                    table.task, table.since = answer.task.id, now

    @rule(hotkey=hotkeys, right=MOSTLY, signed=MOSTLY, empty=st.sampled_from([False, False, False, True]))
    def submit(self, hotkey, right, signed, empty):
        table, now = self.tables[hotkey], self.bench.clock.now
        assert (self.bench.state.refusal(hotkey) is None) == (table.task is not None)
        task = table.task if right else "another"
        answer = self.bench.submit(task or "none", hotkey, empty=empty, signed=signed)
        if table.task is None or not right:
            assert answer.cooldown_until == table.until
        elif not signed:
            table.cool(now, 900)
            assert answer.cooldown_until == table.until
        elif empty:
            table.violations -= 1
            table.cool(now, 300)
            assert answer.cooldown_until == table.until
        elif now - table.attempt < 30:
            table.violations -= 1
            assert answer.cooldown_until == table.until
        else:
            table.violations -= 1
            table.attempt = now
            assert isinstance(answer, Validation)
            self.running.append((hotkey, task, answer))
            return
        assert answer.feedback.task_fidelity_score == 0.0

    @precondition(lambda self: self.running)
    @rule(
        pick=st.integers(min_value=0),
        score=st.sampled_from([0.0, 0.59, 0.6, 0.9, 1.1]),
        failed=st.sampled_from([False, False, False, True]),
    )
    def settle(self, pick, score, failed):
        hotkey, task, validation = self.running.pop(pick % len(self.running))
        table, now = self.tables[hotkey], self.bench.clock.now
        answer = self.bench.state.settle(validation, Verdict(score, failed))
        if table.accepted and now - table.accepted[-1] < 270:
            assert answer.cooldown_until == table.until
            return
        outcome = "unvalidated" if failed else "rejected" if score < 0.6 else "accepted"
        table.cool_late(now, 900 if outcome == "rejected" else 300, validation.assignment.assigned_at)
        if table.task == task:
            table.task = None
        if outcome == "accepted":
            table.fidelity = 0.95 * table.fidelity + 0.05 * min(1.0, score)
            table.accepted.append(now)
        assert answer.cooldown_until == table.until
        assert answer.feedback.validation_failed is failed
        told = min(1.0, score) if outcome == "accepted" else 0.0
        assert answer.feedback.task_fidelity_score == told
        assert answer.feedback.average_fidelity_score == pytest.approx(table.fidelity)

    @invariant()
    def rewards_agree(self):
        oldest = self.bench.clock.now - 4 * 3600
        for hotkey, table in self.tables.items():
            count = sum(moment >= oldest for moment in table.accepted)
            assert self.bench.state.reward(hotkey) == count * 1500.0

    @invariant()
    def every_task_is_in_the_ledger_once(self):
        records = list(self.bench.ledger.records.values())
        assert len({record.task_id for record in records}) == len(records) == self.bench.made
        held = {table.task for table in self.tables.values()} - {None}
        assert {record.task_id for record in records if record.outcome == "open"} == held


TestEveryOrder = EveryOrder.TestCase
TestEveryOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
class TestEveryOrderAtLength(EveryOrder.TestCase):
    settings = settings(max_examples=1000, stateful_step_count=80, deadline=None)
