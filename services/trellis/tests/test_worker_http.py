"""The data port as miners, validators and strangers use it, with a backend that obeys the test."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from sn17_splats import read_ply
from sn17_trellis.backend import BadPrompt, DeviceError, EmptyStructure, GpuOutOfMemory
from sn17_trellis.http import MAX_FORMS

Wait = Callable[[Callable[[], object]], None]
PROMPT = {"prompt": "a red cube"}


def png(width: int = 64, height: int = 64, mode: str = "RGBA", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), "red").save(buffer, kind)
    return buffer.getvalue()


def start(pool: ThreadPoolExecutor, running: Any, backend: Any, **kwargs: Any) -> Any:
    """Post a job that the backend holds; returns the future of its answer."""
    backend.release.clear()
    future = pool.submit(running.data, "POST", "/generate", **kwargs)
    assert backend.entered.acquire(timeout=30)
    return future


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(16) as executor:
        yield executor


# --- the answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/generate", "/generate/"])
@pytest.mark.parametrize("form", [{"data": PROMPT}, {"files": {"prompt": (None, "a red cube")}}])
def test_a_prompt_becomes_a_ply(running: Any, backend: Any, path: str, form: dict[str, Any]) -> None:
    answer = running.data("POST", path, **form)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["sn17-worker"] == "worker-1"
    assert answer.headers["sn17-gaussians"] == "8000"
    assert int(answer.headers["sn17-seed"]) == backend.jobs[0].seed
    assert len(read_ply(answer.content)) == 8000
    assert backend.jobs[0].prompt == "a red cube"


def test_the_competition_contract_is_served_by_the_same_routes(running: Any, backend: Any) -> None:
    answer = running.data(
        "POST", "/generate", files={"prompt_image_file": ("x.png", png(), "image/png")}, data={"seed": "42"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["sn17-seed"] == "42"
    assert backend.jobs[0].image.shape == (64, 64, 4)
    assert backend.jobs[0].prompt is None
    assert running.data("GET", "/health").json() == {"status": "healthy"}
    version = running.data("GET", "/version").json()
    assert version["models"] == ["text", "image"]
    assert version["faults"] is False
    assert version["identity"] == backend.identity
    assert version["driver"] is None


def test_ply_is_named_as_such_for_who_asks(running: Any) -> None:
    answer = running.data("POST", "/generate", data=PROMPT, headers={"accept": "application/ply"})
    assert answer.headers["content-type"] == "application/ply"


def test_a_random_seed_differs_and_a_given_one_is_kept(running: Any, backend: Any) -> None:
    for seed in ("-1", "-1", "0", "4294967295"):
        assert running.data("POST", "/generate", data={**PROMPT, "seed": seed}).status_code == 200
    seeds = [job.seed for job in backend.jobs]
    assert seeds[0] != seeds[1]
    assert seeds[2:] == [0, 4294967295]


def test_wishes_reach_the_backend(running: Any, backend: Any) -> None:
    wishes = {"preset": "fast", "structure_steps": "25", "latent_guidance": "3.5"}
    assert running.data("POST", "/generate", data={**PROMPT, **wishes}).status_code == 200
    sampling = backend.jobs[0].sampling
    assert (sampling.preset, sampling.structure_steps, sampling.latent_guidance) == ("fast", 25, 3.5)
    assert sampling.latent_steps is None


@pytest.mark.parametrize("lane", [None, "exact", "fast"])
def test_the_lane_that_was_asked_for_is_told_and_counted(running: Any, lane: str | None) -> None:
    asked = {} if lane is None else {"lane": lane}
    headers = {"Idempotency-Key": f"lane-{lane}"}
    for _ in range(2):
        answer = running.data("POST", "/generate", data={**PROMPT, **asked}, headers=headers)
        assert answer.headers["sn17-lane"] == (lane or "exact")
    assert running.metric("sn17_generation_lanes_total", lane=lane or "exact") == 1
    refused = running.data("POST", "/generate", data={**PROMPT, "lane": "quick"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_request")


def test_an_asset_that_is_encoded_already_goes_out_as_it_is(running: Any, backend: Any) -> None:
    first = running.data("POST", "/generate", data=PROMPT).content
    backend.asset = first
    assert running.data("POST", "/generate", data=PROMPT).content == first


BLANK = (
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n%s\r\n'
    b'--b\r\nContent-Disposition: form-data; name="seed"\r\n\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="preset"\r\n\r\n \r\n'
    b'--b\r\nContent-Disposition: form-data; name="prompt_image_file"; filename="%s"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n%s\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("parts", "model"),
    [((b"a red cube", b"", b""), "text"), ((b"", b"x.png", png()), "image"), ((b"  ", b"x", png()), "image")],
)
def test_what_a_browser_sends_for_blank_fields_is_absent(
    running: Any, backend: Any, parts: tuple[bytes, ...], model: str
) -> None:
    form = {"content-type": "multipart/form-data; boundary=b"}
    answer = running.data("POST", "/generate", content=BLANK % parts, headers=form)
    assert answer.status_code == 200, answer.text
    assert backend.jobs[0].model == model
    assert backend.jobs[0].sampling.preset is None


def test_a_blank_file_field_of_an_urlencoded_form_is_absent(running: Any) -> None:
    assert running.data("POST", "/generate", data={**PROMPT, "prompt_image_file": ""}).status_code == 200


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_phone_photo_reaches_the_backend_upright(running: Any, backend: Any, orientation: int) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    photo = {"prompt_image_file": ("photo.jpg", buffer.getvalue())}
    assert running.data("POST", "/generate", files=photo).status_code == 200
    shown = np.rot90(pixels, {3: 2, 6: -1, 8: 1}[orientation])
    assert backend.jobs[0].image.shape[:2] == shown.shape[:2]
    assert np.abs(backend.jobs[0].image[..., :3].astype(int) - shown).max() < 40


# --- refusals ---------------------------------------------------------------------------------------

BAD_FORMS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"data": {"prompt": ""}}, 422, "bad_prompt", "send a prompt"),
    ({"data": {"prompt": "   "}}, 422, "bad_prompt", "send a prompt"),
    ({"data": {"prompt": "x" * 1025}}, 422, "bad_prompt", "at most 1024"),
    ({"data": {"prompt": "a\0b"}}, 422, "bad_prompt", "NUL"),
    ({"data": {"seed": "1"}}, 422, "bad_prompt", "send a prompt"),
    ({"data": {**PROMPT, "seed": "abc"}}, 422, "bad_request", "seed"),
    ({"data": {**PROMPT, "seed": "-2"}}, 422, "bad_request", "seed"),
    ({"data": {**PROMPT, "seed": "4294967296"}}, 422, "bad_request", "seed"),
    ({"data": {**PROMPT, "structure_steps": "0"}}, 422, "bad_request", "structure_steps"),
    ({"data": {**PROMPT, "structure_steps": "100000"}}, 422, "bad_request", "structure_steps"),
    ({"data": {**PROMPT, "latent_guidance": "nan"}}, 422, "bad_request", "latent_guidance"),
    ({"data": {**PROMPT, "preset": "../x"}}, 422, "bad_request", "preset"),
    ({"data": {**PROMPT, "latent_step": "5"}}, 422, "bad_request", "did you mean latent_steps"),
    ({"data": {**PROMPT, "sed": ""}}, 422, "bad_request", "did you mean seed"),
    ({"data": {"promt": "a red cube"}}, 422, "bad_request", "did you mean prompt"),
    ({"data": {**PROMPT, "zzz": "5"}}, 422, "bad_request", "known: prompt, seed"),
    ({"data": PROMPT, "params": {"seed": "5"}}, 422, "bad_request", "field of the form"),
    ({"data": {"prompt": ["a", "b"]}}, 422, "bad_request", "twice"),
    ({"json": PROMPT}, 415, "bad_request", "form"),
    ({"content": b""}, 415, "bad_request", "form"),
    ({"files": {"prompt": ("x.txt", b"a red cube")}}, 422, "bad_request", "prompt_image_file only"),
    ({"data": {"prompt_image_file": "text"}}, 422, "bad_image", "file part"),
    ({"files": {"prompt_image_file": ("x", b"")}}, 422, "bad_image", "empty"),
    ({"files": {"prompt_image_file": ("x", b"GIF89a")}}, 422, "bad_image", "is GIF"),
    ({"files": {"prompt_image_file": ("x", png()[:60])}}, 422, "bad_image", "cut short"),
    ({"files": {"prompt_image_file": ("x.png", png(kind="TIFF"))}}, 422, "bad_image", "is TIFF"),
    ({"files": {"prompt_image_file": ("x", png(5000, 5000, "1"))}}, 422, "bad_image", "5000 x 5000"),
    ({"files": {"prompt_image_file": ("x", png())}, "data": PROMPT}, 422, "bad_request", "not both"),
    ({"content": b"prompt=x", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_request", ""),
    (
        {"content": b"--b\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        422,
        "bad_prompt",
        "send a prompt",
    ),
    ({"data": {**PROMPT, **{f"f{i}": "" for i in range(20)}}}, 400, "bad_request", ""),
    ({"data": PROMPT, "headers": {"idempotency-key": "two words"}}, 422, "bad_request", "Idempotency-Key"),
    ({"data": PROMPT, "headers": {"idempotency-key": "x" * 201}}, 422, "bad_request", "Idempotency-Key"),
]


def test_a_bad_form_is_a_clear_error_and_no_job(running: Any, backend: Any) -> None:
    for form, status, code, says in BAD_FORMS:
        answer = running.data("POST", "/generate", **form)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (form, answer.text)
        assert says in answer.json()["detail"]
    assert backend.jobs == []
    assert running.state()["state"] == "ready"
    assert running.data("POST", "/generate", data=PROMPT).status_code == 200


def test_an_image_that_is_too_large_is_refused(new_worker: Any, wait_until: Wait) -> None:
    live = new_worker(max_image_bytes=10_000)
    live.start()
    wait_until(lambda: live.state()["state"] == "ready")
    image = {"prompt_image_file": ("x.png", bytes(10_001))}
    assert live.data("POST", "/generate", files=image).json()["code"] == "too_large"
    huge = {"prompt_image_file": ("x.png", bytes(1_000_000))}
    answer = live.data("POST", "/generate", files=huge)
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


def test_a_huge_picture_is_reduced_before_the_backend_sees_it(running: Any, backend: Any) -> None:
    image = {"prompt_image_file": ("x.jpg", png(4000, 3000, "RGB", "JPEG"))}
    assert running.data("POST", "/generate", files=image).status_code == 200
    assert max(backend.jobs[0].image.shape[:2]) <= 2048


@pytest.mark.parametrize(
    ("error", "status", "code", "outcome"),
    [
        (EmptyStructure("no voxel"), 422, "empty_structure", "empty_structure"),
        (BadPrompt("what?"), 422, "bad_prompt", "bad_request"),
        (GpuOutOfMemory("no room"), 503, "gpu_out_of_memory", "gpu_out_of_memory"),
        (MemoryError(), 503, "memory_refused", "memory_refused"),
        (RuntimeError("secret path"), 500, "internal", "failed"),
    ],
)
def test_a_failed_generation_is_a_clear_error_and_leaves_the_worker_usable(
    running: Any, backend: Any, error: Exception, status: int, code: str, outcome: str
) -> None:
    backend.error = error
    cleanups = backend.cleanups
    answer = running.data("POST", "/generate", data=PROMPT)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "secret" not in answer.text
    assert running.metric("sn17_generations_total", kind="task", outcome=outcome) == 1
    if isinstance(error, GpuOutOfMemory | MemoryError):
        assert backend.cleanups > cleanups
    backend.error = None
    assert running.data("POST", "/generate", data=PROMPT).status_code == 200


def test_a_fatal_device_error_takes_no_more_jobs(running: Any, backend: Any) -> None:
    backend.error = DeviceError("xid_79", "fell off the bus")
    assert running.data("POST", "/generate", data=PROMPT).json()["code"] == "degraded"
    backend.error = None
    assert running.data("POST", "/generate", data=PROMPT).json()["code"] == "degraded"
    assert running.state()["state"] == "degraded"
    assert "xid_79" in running.state()["reason"]
    assert running.ops("GET", "/ready").status_code == 503
    assert running.metric("sn17_gpu_errors_total", kind="xid_79") == 1
    running.ops("POST", "/admin/v1/canary")
    assert running.state()["state"] == "degraded", "a canary does not heal a device"


@pytest.mark.parametrize("asset", ["nan", "empty", "junk"])
def test_an_unusable_output_is_refused(running: Any, backend: Any, asset: str) -> None:
    good = read_ply(running.data("POST", "/generate", data=PROMPT).content)
    backend.asset = {
        "nan": good.replace(positions=np.full_like(good.positions, np.nan)),
        "empty": good.select(slice(0, 0)),
        "junk": b"ply\nnot really",
    }[asset]
    answer = running.data("POST", "/generate", data=PROMPT)
    assert (answer.status_code, answer.json()["code"]) == (503, "degraded")
    assert running.metric("sn17_generations_total", kind="task", outcome="unusable") == 1


def test_suspect_outputs_go_out_but_degrade_the_worker_until_a_canary_passes(
    running: Any, backend: Any
) -> None:
    good = read_ply(running.data("POST", "/generate", data=PROMPT).content)
    backend.asset = good.replace(opacity_logits=np.full(8000, -9.0, dtype=np.float32))
    for _ in range(3):
        assert running.state()["state"] == "ready"
        assert running.data("POST", "/generate", data=PROMPT).status_code == 200
    assert running.state()["state"] == "degraded"
    assert running.metric("sn17_output_findings_total", finding="transparent") == 3
    assert running.ops("GET", "/ready").status_code == 200
    assert running.ops("POST", "/admin/v1/canary").json()["result"]["passed"] is True
    assert running.state()["state"] == "ready"


def test_a_model_that_is_not_loaded_is_refused(running: Any, backend: Any) -> None:
    backend.models = ("text",)
    answer = running.data("POST", "/generate", files={"prompt_image_file": ("x.png", png())})
    assert answer.json()["code"] == "bad_request"
    assert "text" in answer.json()["detail"]


# --- one job at a time ------------------------------------------------------------------------------


def test_a_busy_worker_refuses_at_once_and_stays_ready(running: Any, backend: Any, pool: Any) -> None:
    first = start(pool, running, backend, data=PROMPT)
    answer = running.data("POST", "/generate", data=PROMPT)
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert float(answer.headers["retry-after"]) >= 1
    state = running.state()
    assert state["state"] == "busy"
    assert state["job"]["stage"] == "structure"
    assert (state["job"]["step"], state["job"]["steps"]) == (1, 2)
    assert running.ops("GET", "/ready").status_code == 200
    assert running.metric("sn17_jobs_in_flight") == 1
    backend.release.set()
    assert first.result(30).status_code == 200


def test_a_busy_worker_refuses_before_it_reads_the_body(running: Any, backend: Any, pool: Any) -> None:
    first = start(pool, running, backend, data=PROMPT)
    with running.raw() as sock:
        sock.sendall(
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 10000000\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 503")
    backend.release.set()
    assert first.result(30).status_code == 200


def test_too_many_uploads_at_once_are_refused_and_hold_nobody_up_for_long(
    running: Any, wait_until: Wait
) -> None:
    head = (
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 1000\r\n\r\n--b\r\n"
    )
    slow = [running.raw() for _ in range(MAX_FORMS)]
    for sock in slow:
        sock.sendall(head)

    def code() -> Any:
        answer = running.data("POST", "/generate", data=PROMPT)
        return answer.json()["code"] if answer.status_code != 200 else None

    wait_until(lambda: code() == "overloaded")
    for sock in slow:
        sock.close()
    wait_until(lambda: code() is None)


def test_of_many_at_once_each_gets_its_own_asset_or_busy(running: Any, backend: Any, pool: Any) -> None:
    def post(seed: int) -> httpx2.Response:
        answer: httpx2.Response = running.data("POST", "/generate", data={**PROMPT, "seed": str(seed)})
        return answer

    answers = list(pool.map(post, range(48)))
    done = [answer for answer in answers if answer.status_code == 200]
    assert done
    assert {a.json()["code"] for a in answers if a.status_code != 200} <= {"busy", "overloaded"}
    for seed, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.headers["sn17-seed"] == str(seed)
    assert backend.most_at_work == 1
    assert len(backend.jobs) == len(done)


# --- keys -------------------------------------------------------------------------------------------

KEY = {"idempotency-key": "0d1c2b/1"}


def test_the_same_key_gives_the_same_result_without_another_generation(running: Any, backend: Any) -> None:
    first = running.data("POST", "/generate", data=PROMPT, headers=KEY)
    again = running.data("POST", "/generate", data=PROMPT, headers=KEY)
    assert again.status_code == 200
    assert again.content == first.content
    assert again.headers["sn17-seed"] == first.headers["sn17-seed"]
    assert len(backend.jobs) == 1


def test_callers_with_one_key_share_one_job(running: Any, backend: Any, pool: Any, wait_until: Wait) -> None:
    first = start(pool, running, backend, data=PROMPT, headers=KEY)
    others = [pool.submit(running.data, "POST", "/generate", data=PROMPT, headers=KEY) for _ in range(6)]
    assert running.state()["job"]["key"] == KEY["idempotency-key"]
    backend.release.set()
    answers = [first.result(30), *(other.result(30) for other in others)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(backend.jobs) == 1


def test_a_key_that_means_something_else_is_a_conflict(running: Any, backend: Any) -> None:
    running.data("POST", "/generate", data={**PROMPT, "seed": "1"}, headers=KEY)
    for other in ({"prompt": "a blue cube", "seed": "1"}, {**PROMPT, "seed": "2"}, PROMPT):
        answer = running.data("POST", "/generate", data=other, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert len(backend.jobs) == 1


def test_a_kept_result_is_given_out_even_while_draining_and_after_a_restart(
    running: Any, new_worker: Any, backend: Any
) -> None:
    first = running.data("POST", "/generate", data=PROMPT, headers=KEY)
    running.ops("POST", "/admin/v1/drain", json={"by": "user", "reason": "test"})
    assert running.data("POST", "/generate", data=PROMPT).json()["code"] == "draining"
    assert running.data("POST", "/generate", data=PROMPT, headers=KEY).content == first.content
    running.stop()
    again = new_worker()
    again.start()
    assert again.data("POST", "/generate", data=PROMPT, headers=KEY).content == first.content
    assert len(backend.jobs) == 1


def test_a_failure_is_not_kept(running: Any, backend: Any) -> None:
    backend.error = EmptyStructure("nothing")
    assert running.data("POST", "/generate", data=PROMPT, headers=KEY).status_code == 422
    backend.error = None
    assert running.data("POST", "/generate", data=PROMPT, headers=KEY).status_code == 200


def test_a_full_disk_is_said_and_loses_nothing_else(running: Any, backend: Any) -> None:
    results = running.worker.spool._folder
    results.rename(results.with_name("moved"))
    answer = running.data("POST", "/generate", data=PROMPT, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    results.with_name("moved").rename(results)
    assert running.data("POST", "/generate", data=PROMPT, headers=KEY).status_code == 200


# --- going away -------------------------------------------------------------------------------------


def post_and_leave(running: Any, backend: Any, headers: bytes = b"") -> None:
    backend.release.clear()
    with socket.create_connection(("127.0.0.1", running.service.port)) as sock:
        sock.sendall(
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            + headers
            + b"Content-Length: 19\r\n\r\nprompt=a+red+cube+1"
        )
        assert backend.entered.acquire(timeout=30)


def test_a_caller_without_a_key_that_leaves_cancels_its_job(
    running: Any, backend: Any, wait_until: Wait
) -> None:
    post_and_leave(running, backend)
    wait_until(lambda: running.metric("sn17_generations_total", kind="task", outcome="cancelled") == 1)
    assert running.state()["state"] == "ready"
    assert all(
        sample.value == 0
        for metric in running.service.refusals.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    ), "a cancellation is not a refusal"


def test_a_caller_with_a_key_that_leaves_finds_its_result_later(
    running: Any, backend: Any, wait_until: Wait
) -> None:
    post_and_leave(running, backend, b"Idempotency-Key: left/1\r\n")
    assert running.state()["job"]["key"] == "left/1"
    backend.release.set()
    wait_until(lambda: running.metric("sn17_generations_total", kind="task", outcome="ok") == 1)
    answer = running.data(
        "POST", "/generate", data={"prompt": "a red cube 1"}, headers={"idempotency-key": "left/1"}
    )
    assert answer.status_code == 200
    assert len(backend.jobs) == 1


def test_a_finished_job_of_a_caller_that_left_leaves_no_file(
    running: Any, backend: Any, wait_until: Wait
) -> None:
    """The cancellation comes too late: the backend was already past its last step."""
    post_and_leave(running, backend)
    backend.release.set()
    wait_until(lambda: running.metric("sn17_jobs_in_flight") == 0)
    wait_until(lambda: not list(running.worker.spool._folder.iterdir()))


def test_a_job_is_cancelled_by_its_key(running: Any, backend: Any, pool: Any) -> None:
    waiting = start(pool, running, backend, data=PROMPT, headers=KEY)
    answer = running.data("DELETE", f"/v1/jobs/{KEY['idempotency-key']}")
    assert answer.json() == {"key": "0d1c2b/1", "result": "cancelled"}
    assert waiting.result(30).json()["code"] == "conflict"
    assert running.state()["state"] == "ready"


def test_a_kept_result_is_dropped_by_its_key(running: Any) -> None:
    running.data("POST", "/generate", data=PROMPT, headers=KEY)
    path = "/v1/jobs/0d1c2b%2F1"
    assert running.data("DELETE", path).json()["result"] == "removed"
    assert running.data("DELETE", path).status_code == 404
    assert list(running.worker.spool._folder.iterdir()) == []


def test_the_description_names_form_headers_and_errors(running: Any) -> None:
    description = running.data("GET", "/openapi.json").json()
    post = description["paths"]["/generate"]["post"]
    fields = post["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"prompt", "seed", "prompt_image_file", "structure_steps"} <= set(fields)
    told = {"SN17-Seed", "SN17-Gaussians", "SN17-Lane", "SN17-Prompt-Tokens-Cut", "SN17-Worker"}
    assert set(post["responses"]["200"]["headers"]) == told
    assert "application/problem+json" in post["responses"]["default"]["content"]
    assert set(description["paths"]) == {"/generate", "/health", "/version", "/v1/worker", "/v1/jobs/{key}"}
