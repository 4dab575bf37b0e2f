"""The small parts: clocks, what is learned, verdicts, the fleet, the pool, the spool, prompts."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from picture_corpus import Sample, samples
from pydantic import ValidationError
from sn17_contract.http import WorkerState
from sn17_contract.worker import JobStatus, MemoryStatus, WorkerStatus
from sn17_miner.clients.web import DiskError, new_session
from sn17_miner.clients.worker import JobInput, WorkerClient
from sn17_miner.core.clock_offset import Offset
from sn17_miner.core.fleet import STARTS_WITHIN, Fleet
from sn17_miner.core.images import image_bytes
from sn17_miner.core.learning import Learned
from sn17_miner.core.timing import Timing
from sn17_miner.core.verdict import CallError, Standing, Terms, Verdict, read_answer, read_error
from sn17_miner.pool import Pool, by_dns
from sn17_miner.prompts import enhance_image, enhance_text
from sn17_miner.spool import Spool, SpoolError
from sn17_protocol import Feedback, SubmitResults

# --- clocks ---------------------------------------------------------------------------------------


@given(
    st.floats(-100, 100),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=30),
)
def test_date_headers_bound_the_offset_and_never_wake_us_early(
    true: float, calls: list[tuple[float, float, float]]
) -> None:
    offset, now = Offset(), 1_700_000_000.0
    for pause, there, back in calls:
        now += pause * 37
        theirs = now + there + true
        offset.date_header(now, now + there + back, float(int(theirs)))
    assert offset.low - 1e-3 <= true <= offset.high + 1e-3
    if offset.estimate != 0.0:
        # The estimate is never above the truth by more than drift: their clock has reached the moment.
        assert offset.estimate <= true + 0.01


def test_zero_unless_disproved() -> None:
    offset = Offset()
    offset.date_header(100.0, 100.1, 100.0)
    assert offset.estimate == 0.0
    offset.learn(101.0, 4.0, 5.0)
    assert offset.ours(200.0) == 196.0


def test_a_date_that_made_us_early_is_not_believed_again() -> None:
    offset = Offset()
    offset.date_header(100.0, 100.1, 3700.0)
    assert offset.estimate > 3000
    offset.before(200.0, 200.1, 260.0)
    assert offset.estimate == 0.0
    offset.date_header(300.0, 300.1, 3900.0)
    assert offset.estimate == 0.0


def test_a_violation_without_any_date_shifts_the_next_pull_by_seconds_not_hours() -> None:
    offset = Offset()
    offset.before(200.0, 200.1, 199.0)
    assert 199.0 < offset.ours(199.0) < 205.0


def test_learned_survives_the_journal_and_nonsense_is_forgotten() -> None:
    learned = Learned.fresh(Timing())
    learned.told(25, 0.7)
    learned.told(-1, 99)
    learned.judge(accepted=True)
    learned.offset.learn(5.0, -1.0, inf)
    learned.waited(3.0)
    learned.evidence.judged("healthy", accepted=True, now=3.0)
    learned.evidence.decided("score:0.40", handed_in=False, now=4.0)
    again = Learned.load(learned.dump(), Timing())
    assert again == learned
    assert (again.throttle, again.threshold) == (25, 0.7)
    for text in ("", "{}", "[]", '{"throttle": 1, "new field": 2}'):
        assert Learned.load(text, Timing()) == Learned.fresh(Timing())


def test_evidence_of_an_earlier_version_is_read() -> None:
    values = json.loads(Learned.fresh(Timing()).dump())
    del values["idle"]
    values["evidence"] = {"healthy": [3.0, 4.0, 1000.0]}
    again = Learned.load(json.dumps(values), Timing())
    seen = again.evidence.classes["healthy"]
    assert (seen.accepted, seen.judged, seen.offered, seen.at) == (3.0, 4.0, 4.0, 1000.0)
    values["evidence"] = {"healthy": [3.0, 4.0, float("nan")]}
    assert Learned.load(json.dumps(values), Timing()) == Learned.fresh(Timing())


@pytest.mark.parametrize(
    ("delivery", "accepted"), [(10.0, True), (30.0, True), (75.0, True), (20.0, False), (90.0, False)]
)
def test_cooldown_and_penalty_are_worked_out_from_answers(delivery: float, accepted: bool) -> None:
    learned = Learned.fresh(Timing())
    learned.base_cooldown, learned.penalty = 240.0, 1.0
    assigned, total = 1000.0, 240.0 + (0.0 if accepted else 500.0)
    ended = assigned + delivery
    until = max(ended + total - 30.0, assigned + total)
    learned.cooled(assigned=assigned, ended=ended, until=until, accepted=accepted)
    assert learned.base_cooldown == pytest.approx(240.0)
    assert learned.penalty == pytest.approx(1.0 if accepted else 500.0)


# --- verdicts -------------------------------------------------------------------------------------


def answer(feedback: Feedback | None, until: int) -> SubmitResults:
    return SubmitResults(results="", submit_time=1, signature="", feedback=feedback, cooldown_until=until)


TERMS = Terms(base_cooldown=300, penalty=600, throttle=30)
SOME = Feedback(average_fidelity_score=0.98, generations_within_the_window=5)


def read(feedback: Feedback | None, until: int, **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "skipped": False,
        "resent": False,
        "sent_theirs": 1000.0,
        "received_theirs": 1000.0,
    }
    return read_answer(answer(feedback, until), **{**values, "terms": TERMS, **changes}).verdict


@pytest.mark.parametrize(
    ("feedback", "until", "skipped", "verdict"),
    [
        (Feedback(task_fidelity_score=0.8), 1300, False, Verdict.ACCEPTED),
        (Feedback(), 1900, False, Verdict.REJECTED),
        (SOME, 1900, False, Verdict.REJECTED),
        (SOME, 1870, False, Verdict.REJECTED),
        (SOME, 1300, False, Verdict.REPEATED),
        (SOME, 1210, False, Verdict.REPEATED),
        (SOME, 1300, True, Verdict.SKIPPED),
        (Feedback(validation_failed=True), 1300, False, Verdict.UNVALIDATED),
        (Feedback(), 1300, True, Verdict.SKIPPED),
        (Feedback(), 0, False, Verdict.NOT_PROCESSED),
        (Feedback(average_fidelity_score=0.9), 990, False, Verdict.NOT_PROCESSED),
        (Feedback(average_fidelity_score=0.9), 1002, False, Verdict.NOT_PROCESSED),
        (None, 0, False, Verdict.UNKNOWN),
    ],
)
def test_answers(feedback: Feedback | None, until: int, skipped: bool, verdict: Verdict) -> None:
    assert read(feedback, until, skipped=skipped) is verdict


def test_without_any_accepted_result_nothing_is_repeated() -> None:
    assert read(Feedback(average_fidelity_score=1.0), 1300) is Verdict.REJECTED
    unchanged = replace(TERMS, standing=Standing.of(SOME))
    assert read(SOME, 1300, terms=unchanged) is Verdict.REJECTED
    assert read(SOME, 1300, terms=replace(TERMS, standing=Standing(4, 0.97))) is Verdict.REPEATED


def test_where_cooldowns_do_not_differ_only_a_second_submission_can_be_a_repetition() -> None:
    mild = replace(TERMS, penalty=0)
    assert read(SOME, 1300, terms=mild) is Verdict.REJECTED
    assert read(SOME, 1300, terms=mild, resent=True) is Verdict.REPEATED


@pytest.mark.parametrize(
    ("status", "message", "verdict"),
    [
        (None, "refused", Verdict.NOT_SENT),
        (408, "no answer", Verdict.UNKNOWN),
        (422, "unreadable", Verdict.UNKNOWN),
        (500, "x", Verdict.UNKNOWN),
        (500, "no task assigned", Verdict.UNKNOWN),
        (503, "reset", Verdict.UNKNOWN),
        (401, "Nonce is too old", Verdict.REFUSED),
        (403, "5F submitted results while having no task assigned", Verdict.GONE),
        (403, "5F is not registered", Verdict.REFUSED),
        (404, "no such synapse", Verdict.REFUSED),
    ],
)
def test_failed_calls(status: int | None, message: str, verdict: Verdict) -> None:
    assert read_error(CallError(status, message)).verdict is verdict


# --- fleet ----------------------------------------------------------------------------------------


def status(
    name: str = "w", *, state: WorkerState = WorkerState.READY, memory: int = 1, job: JobStatus | None = None
) -> WorkerStatus:
    return WorkerStatus(
        worker=name,
        version="0",
        boot_id="b",
        life_id="l",
        state=state,
        reason=None,
        job=job,
        memory=MemoryStatus(unreclaimable_bytes=memory, working_set_bytes=memory, limit_bytes=None),
        models=("text", "image"),
        gaussians_mean=None,
        model_processes=1,
        recycling=None,
        phase=None,
        start_seconds=None,
        last_recycle=None,
    )


def test_who_is_free_and_why_not() -> None:
    fleet = Fleet(stale_after=5.0)
    fleet.discovered(["a", "b", "c"], 0.0, forget=True)
    assert fleet.free(0.0) == []
    fleet.observe("a", status("a", memory=9), 0.0)
    fleet.observe("b", status("b", memory=3), 0.0)
    fleet.observe("c", status("c", state=WorkerState.DRAINING), 0.0)
    assert [worker.url for worker in fleet.free(1.0)] == ["b", "a"]
    assert fleet.why_not(fleet.workers["c"], 1.0) == "draining"
    fleet.hold("b", "task 1", 1.0)
    with pytest.raises(ValueError, match="task 1"):
        fleet.hold("b", "task 2", 1.0)
    fleet.rest("a", 10.0, "failed", 1.0)
    assert fleet.free(2.0) == []
    assert fleet.why_not(fleet.workers["a"], 2.0) == "failed"
    fleet.release("b", 3.0)
    assert fleet.free(3.0)[0].free_since == 3.0
    assert fleet.free(6.0) == []
    assert fleet.why_not(fleet.workers["b"], 6.0) == "no news from it"
    fleet.unreachable("b", "refused", 6.0)
    assert fleet.why_not(fleet.workers["b"], 6.0) == "refused"


def test_a_refusal_is_believed_until_the_worker_speaks_again() -> None:
    fleet = Fleet(stale_after=5.0)
    fleet.discovered(["a"], 0.0, forget=True)
    fleet.observe("a", status(), 0.0)
    fleet.refused("a", WorkerState.REFUSING, 0.1)
    assert fleet.free(0.2) == []
    fleet.observe("a", status(), 1.0)
    assert len(fleet.free(1.0)) == 1


WARMING = {"state": WorkerState.WARMING, "models": ()}
TEXT_ONLY = {"models": ("text",)}


@pytest.mark.parametrize(
    ("said", "now", "serves"),
    [
        pytest.param([], 0.0, True, id="nobody has been asked"),
        pytest.param([("a", WARMING)], 900.0, True, id="all that is known is being loaded"),
        pytest.param([("a", {}), ("a", WARMING)], 900.0, True, id="what it did before its restart"),
        pytest.param(
            [("a", TEXT_ONLY), ("a", WARMING)], 900.0, False, id="so a text worker after its restart"
        ),
        pytest.param([("a", TEXT_ONLY), ("b", WARMING)], 900.0, True, id="beside one that is being loaded"),
        pytest.param([("a", TEXT_ONLY)], 10.0, True, id="beside one that has not answered yet"),
        pytest.param([("a", TEXT_ONLY)], 900.0, False, id="beside one that never answers"),
        pytest.param([("a", TEXT_ONLY), ("b", TEXT_ONLY)], 10.0, False, id="nobody does it"),
        pytest.param([("a", TEXT_ONLY), ("b", {}), ("b", None)], 900.0, True, id="it is out of reach"),
    ],
)
def test_what_a_fleet_serves_outlives_restarts_of_its_workers(
    said: list[tuple[str, dict[str, Any] | None]], now: float, serves: bool
) -> None:
    """A worker that loads its models names none: no task may end for that."""
    fleet = Fleet(stale_after=5.0)
    fleet.discovered(["a", "b"], 0.0, forget=True)
    if now > STARTS_WITHIN:
        fleet.unreachable("b", "refused", now)
    for url, change in said:
        if change is None:
            fleet.unreachable(url, "refused", now)
        else:
            fleet.observe(url, status(url).model_copy(update=change), now)
    if said == [("a", WARMING)] or said[1:] == [("a", WARMING)]:
        fleet.discovered(["a"], now, forget=True)
    assert fleet.serves("image", now) is serves


def test_progress_is_a_change_of_the_job() -> None:
    fleet = Fleet(stale_after=5.0)
    fleet.discovered(["a"], 0.0, forget=True)
    for now, step in ((0.0, 1), (1.0, 1), (2.0, 2), (3.0, 2)):
        fleet.observe(
            "a",
            status(
                state=WorkerState.BUSY,
                job=JobStatus(key="k", stage="structure", step=step, steps=4, progress_at=0.0),
            ),
            now,
        )
    assert fleet.workers["a"].moved_at == 2.0


def test_workers_of_release_0_1_0_are_used_as_those_of_today() -> None:
    """The answers were recorded from commit de55a71."""
    recorded = json.loads((Path(__file__).parent / "data/worker-0.1.0.json").read_text())
    fleet, seen = Fleet(stale_after=5.0), []
    fleet.discovered(["a"], 0.0, forget=True)
    for now, answer in enumerate(recorded):
        said = WorkerStatus.model_validate_json(json.dumps(answer))
        assert (said.life_id, said.model_processes, said.recycling) == (said.boot_id, 1, None)
        fleet.observe("a", said, float(now))
        seen.append(fleet.why_not(fleet.workers["a"], float(now)))
    assert seen == ["warming", None, "busy"]
    for name in recorded[0]:
        less = {field: value for field, value in recorded[0].items() if field != name}
        with pytest.raises(ValidationError):
            WorkerStatus.model_validate(less)


def test_workers_in_use_outlive_their_discovery() -> None:
    fleet = Fleet(stale_after=5.0)
    fleet.discovered(["a", "b"], 0.0, forget=True)
    fleet.hold("a", "task 1", 0.0)
    assert fleet.discovered(["b"], 0.0, forget=True) == ([], [])
    fleet.release("a", 1.0)
    assert fleet.discovered(["b"], 0.0, forget=True) == ([], ["a"])
    assert fleet.discovered([], 0.0, forget=False) == ([], [])
    assert list(fleet.workers) == ["b"]


async def test_discovery_by_name_gives_every_address() -> None:
    assert "http://127.0.0.1:10006" in await by_dns("localhost", 10006)()


async def test_a_discovery_that_fails_forgets_nobody() -> None:
    found = asyncio.Event()
    answers: list[list[str] | OSError] = [["a"], OSError("no name service"), []]

    async def discover() -> list[str]:
        if not answers:
            found.set()
            await asyncio.Event().wait()
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async with new_session() as session:
        client = WorkerClient(session, timeout=1.0, poll_timeout=1.0, max_bytes=1)
        pool = Pool(Fleet(stale_after=1.0), client, discover, lambda: 0.0, 1.0, 0.0)
        running = asyncio.create_task(pool.run(lambda name, work: None))
        async with asyncio.timeout(10):
            await found.wait()
        running.cancel()
    assert list(pool.fleet.workers) == ["a"]


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_our_own_full_disk_is_not_a_workers_fault() -> None:
    """Else the task is given up after four workers have been blamed for it."""

    async def splat(request: web.Request) -> web.Response:
        return web.Response(body=b"ply\n" + bytes(100))

    app = web.Application()
    app.router.add_post("/generate", splat)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with new_session() as session:
            client = WorkerClient(session, timeout=10.0, poll_timeout=1.0, max_bytes=1_000)
            with pytest.raises(DiskError, match="No space left"):
                await client.generate(url, JobInput("k/1", 1, prompt="a cube"), FullDisk())
    finally:
        await runner.cleanup()


async def test_tasks_that_wait_get_workers_in_the_order_they_asked() -> None:
    async def nobody() -> list[str]:
        return []

    async with new_session() as session:
        client = WorkerClient(session, timeout=1.0, poll_timeout=1.0, max_bytes=1)
        fleet = Fleet(stale_after=1e9)
        pool = Pool(fleet, client, nobody, lambda: 0.0, 1.0, 1.0)
        fleet.discovered(["a"], 0.0, forget=True)
        done = asyncio.Event()

        async def work(n: int) -> str | None:
            async with pool.lease(f"task {n}", "text", 10.0) as worker:
                await done.wait()
                return worker and worker.held_by

        waiting = [asyncio.create_task(work(n)) for n in range(3)]
        await asyncio.sleep(0)
        assert pool.waiting == 3
        fleet.observe("a", status(), 0.0)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        pool.dispatch()
        assert fleet.workers["a"].held_by == "task 1"
        assert pool.waiting == 1
        done.set()
        assert await asyncio.gather(*waiting[1:]) == ["task 1", "task 2"]
        assert fleet.workers["a"].held_by is None
        with pool.held(fleet.hold("a", "other", 0.0), "other"):
            async with pool.lease("task 9", "text", 0.0) as nothing:
                assert nothing is None
        assert pool.waiting == 0


async def test_a_lease_keeps_what_is_held_already_unless_it_does_not_serve() -> None:
    async def nobody() -> list[str]:
        return []

    async with new_session() as session:
        client = WorkerClient(session, timeout=1.0, poll_timeout=1.0, max_bytes=1)
        fleet = Fleet(stale_after=1e9)
        pool = Pool(fleet, client, nobody, lambda: 0.0, 1.0, 1.0)
        fleet.discovered(["a"], 0.0, forget=True)
        fleet.observe("a", status().model_copy(update={"models": ("text",)}), 0.0)
        assert not fleet.serves("image", 0.0)
        held = fleet.hold("a", "task 1", 0.0)
        async with pool.lease("task 1", "text", 0.0, held=held) as worker:
            assert worker is held
        assert held.held_by is None
        fleet.hold("a", "task 1", 0.0)
        async with pool.lease("task 1", "image", 0.0, held=held) as worker:
            assert worker is None
            assert held.held_by is None


# --- spool ----------------------------------------------------------------------------------------


def test_a_name_in_the_spool_means_a_whole_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    file = spool.create("1.ply")
    file.write(b"half")
    with pytest.raises(SpoolError):
        spool.read("1.ply")
    spool.commit("1.ply", file)
    assert spool.read("1.ply") == b"half"
    dropped = spool.create("2.ply")
    spool.discard("2.ply", dropped)
    spool.create("3.ply").close()
    assert spool.sweep({"1.ply"}) == 1
    assert spool.used() == 4
    assert spool.full() is None
    spool.max_bytes = 4
    assert "at most" in (spool.full() or "")
    spool.max_bytes, spool.min_free_bytes = 1000, 1 << 60
    assert "must stay free" in (spool.full() or "")


# --- prompts --------------------------------------------------------------------------------------


def test_text_enhancement_is_conservative() -> None:
    change = enhance_text("  a red   cube. ", "{prompt}, centered")
    assert change is not None
    assert change.prompt == "a red cube, centered"
    assert enhance_text("x" * 1020, "{prompt}, centered") is None
    assert enhance_text("   ", "{prompt}, centered") is None
    assert enhance_text("a cube", "{prompt}") is None


def test_image_enhancement_enlarges_and_keeps_transparency() -> None:
    """Put on white, a cut-out object becomes an ordinary photograph, which workers may refuse."""
    image = pytest.importorskip("PIL.Image", reason="needs the extra 'images'")
    cut_out = image.new("RGBA", (64, 32), (255, 0, 0, 0))
    cut_out.paste((0, 0, 255, 255), (16, 8, 48, 24))
    palette = image.new("P", (64, 32), 0)
    palette.info["transparency"] = 0
    for opened in (cut_out, palette):
        out = io.BytesIO()
        opened.save(out, "PNG")
        change = enhance_image(base64.b64encode(out.getvalue()).decode())
        assert change is not None
        made = image.open(io.BytesIO(base64.b64decode(change.prompt)))
        assert (made.size, made.mode, made.getpixel((0, 0))[3]) == ((512, 256), "RGBA", 0)
        assert change.detail == "enlarged 8.0 times"
    assert image.open(io.BytesIO(base64.b64decode(change.prompt))).size == (512, 256)
    large = io.BytesIO()
    image.new("RGB", (600, 600)).save(large, "JPEG")
    assert enhance_image(base64.b64encode(large.getvalue()).decode()) is None


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_image_enhancement_turns_as_the_camera_was_held(orientation: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra 'images'")
    out, exif = io.BytesIO(), image.Exif()
    exif[0x0112] = orientation
    image.new("RGB", (600, 700)).save(out, "JPEG", exif=exif)
    change = enhance_image(base64.b64encode(out.getvalue()).decode())
    assert change is not None
    assert change.detail == "turned"
    made = image.open(io.BytesIO(base64.b64decode(change.prompt)))
    assert made.getexif().get(0x0112, 1) == 1
    assert made.size == ((700, 600) if orientation > 4 else (600, 700))


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_image_enhancement_shows_the_worker_what_a_viewer_shows(sample: Sample) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra 'images'")
    change = enhance_image(base64.b64encode(sample.data).decode())
    assert change is not None
    made = image.open(io.BytesIO(base64.b64decode(change.prompt)))
    bands = sample.expected.shape[2]
    assert (made.mode, max(made.size)) == ("RGBA" if bands == 4 else "RGB", 512)
    expected = image.fromarray(sample.expected).resize(made.size, image.Resampling.LANCZOS)
    assert abs(np.asarray(made).astype(int) - np.asarray(expected)).mean() <= sample.tolerance + 1


BYTES = bytes(range(250)) + b"\xff\xfe"
PLAIN = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "prompt",
    [
        PLAIN,
        PLAIN.rstrip("="),
        PLAIN + "\n",
        base64.encodebytes(BYTES).decode(),
        base64.urlsafe_b64encode(BYTES).decode(),
        f"data:image/png;base64,{PLAIN}",
        f"  DATA:image/jpeg;charset=utf-8;base64,{PLAIN}\r\n",
    ],
)
def test_images_are_read_in_every_dialect_of_base64(prompt: str) -> None:
    assert image_bytes(prompt) == BYTES


@given(st.binary(min_size=1, max_size=200))
def test_every_image_comes_back(data: bytes) -> None:
    assert image_bytes(base64.b64encode(data).decode()) == data
    assert image_bytes(base64.urlsafe_b64encode(data).decode().rstrip("=")) == data


@pytest.mark.parametrize(
    "prompt", ["", "  ", "====", "not base64!", "abcde", "data:image/svg+xml,<svg/>", "äöü"]
)
def test_what_is_no_base64_is_said(prompt: str) -> None:
    with pytest.raises(ValueError, match="the prompt is"):
        image_bytes(prompt)


@pytest.mark.parametrize("prompt", ["", "not base64!", base64.b64encode(b"no image").decode()])
def test_an_image_that_cannot_be_read_is_left_alone(prompt: str) -> None:
    pytest.importorskip("PIL", reason="needs the extra 'images'")
    assert enhance_image(prompt) is None
