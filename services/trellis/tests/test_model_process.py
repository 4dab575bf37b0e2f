"""The model as a process of its own: real processes that die, swap and are replaced under real requests."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from sn17_http import own_request
from sn17_splats import read_ply

Wait = Callable[[Callable[[], object]], None]
MIB = 1024 * 1024


def done(worker: Any, how: str = "swap") -> bool:
    last = worker.state()["last_recycle"]
    return last is not None and last["how"] == how and worker.state()["recycling"] is None


def test_the_service_never_imports_torch_nor_a_backend() -> None:
    code = "import sys, sn17_trellis.serve; print([m for m in sys.modules if m.split('.')[0] == 'torch'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_pictures_are_decoded_by_the_model_process(new_process: Any) -> None:
    pixels = np.full((96, 96, 4), 255, np.uint8)
    pixels[24:72, 24:72] = (200, 30, 30, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    worker = new_process()

    def post(content: bytes) -> Any:
        return own_request(
            "POST", f"{worker.url}/generate", files={"prompt_image_file": ("x.png", content)}, timeout=60
        )

    assert len(read_ply(post(buffer.getvalue()).content)) > 0
    damaged = post(buffer.getvalue()[:60])
    assert (damaged.status_code, damaged.json()["code"]) == (422, "bad_image")
    assert "PIL" not in Path(f"/proc/{worker.process.pid}/maps").read_text(), "the service never decodes"


@pytest.mark.parametrize("backend", ["procedural", "torch", "reference"])
def test_what_is_preloaded_leaves_the_device_alone(backend: str) -> None:
    code = (
        "import sys; from sn17_trellis.model_process.forkserver import preload;"
        f"preload({backend!r}); torch = sys.modules.get('torch');"
        "print(torch is not None and torch.cuda.is_initialized());"
        "import os; print([p for p in map(os.readlink, (f'/proc/self/fd/{n}' for n in range(3, 64)"
        " if os.path.exists(f'/proc/self/fd/{n}'))) if 'nvidia' in p])"
    )
    env = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert found.stdout.split("\n")[:2] == ["False", "[]"]


def test_a_model_that_is_killed_in_mid_job_costs_the_caller_nothing(
    new_process: Any, wait_until: Wait
) -> None:
    worker = new_process(faults={"slow_seconds": 1.5})
    first = worker.post("t/0", seed="3")
    life = worker.state()["life_id"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(worker.post, "t/1", seed="3")
        wait_until(lambda: worker.state()["job"] is not None)
        os.kill(worker.models()[0], signal.SIGKILL)
        assert answer.result(60).content == first.content, "same seed, same bytes, in the next life"
    assert worker.post("t/1", seed="3").content == first.content, "a repeated get returns the same bytes"
    state = worker.state()
    assert state["life_id"] != life
    assert (state["model_processes"], state["state"]) == (1, "ready")
    assert worker.metric('sn17_jobs_rerun_total{cause="killed"}') == 1
    assert worker.metric('sn17_generations_total{kind="task",outcome="ok"}') == 2
    assert worker.metric('sn17_model_ends_total{how="killed"}') == 1


def test_a_job_that_kills_two_models_is_given_up_and_the_worker_goes_on(
    new_process: Any, wait_until: Wait
) -> None:
    worker = new_process(faults={"crash_after": 0})
    answer = worker.post("t/1")
    assert (answer.status_code, answer.json()["code"]) == (503, "job_killed_model")
    assert "use another worker" in answer.json()["detail"]
    assert worker.metric('sn17_generations_total{kind="task",outcome="job_killed_model"}') == 1
    wait_until(lambda: worker.state()["state"] == "ready")
    assert worker.process.poll() is None


def test_a_model_that_dies_while_idle_is_started_anew(new_process: Any, wait_until: Wait) -> None:
    worker = new_process()
    life = worker.state()["life_id"]
    os.kill(worker.models()[0], signal.SIGKILL)
    wait_until(lambda: worker.state()["life_id"] != life and worker.state()["state"] == "ready")
    assert worker.post().status_code == 200


def test_when_the_fork_server_dies_its_models_do_and_all_start_anew(
    new_process: Any, wait_until: Wait
) -> None:
    worker = new_process(faults={"slow_seconds": 1.0})
    server, model = worker.fork_server(), worker.models()[0]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(worker.post, "t/1")
        wait_until(lambda: worker.state()["job"] is not None)
        os.kill(server, signal.SIGKILL)
        assert answer.result(60).status_code == 200
    assert worker.fork_server() != server
    assert not Path(f"/proc/{model}").exists(), "it was reaped"
    assert worker.metric('sn17_jobs_rerun_total{cause="killed"}') == 1


def test_when_the_service_is_killed_nothing_of_it_stays(new_process: Any, wait_until: Wait) -> None:
    worker = new_process()
    pids = [worker.fork_server(), *worker.models()]
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_model_that_hangs_is_given_up_and_liveness_is_the_services(
    new_process: Any, wait_until: Wait
) -> None:
    worker = new_process(faults={"hang_after": 1}, stall_seconds=1.5, grace_seconds=0.5)
    assert worker.post().status_code == 200
    answer = worker.post("t/2")
    assert answer.status_code == 200, "the next life counts its jobs anew"
    assert worker.metric('sn17_jobs_rerun_total{cause="stalled"}') == 1
    assert own_request("GET", f"{worker.ops_url}/health").status_code == 200


def test_a_swap_keeps_working_and_gives_the_same_bytes(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(procedural_load_seconds=1.0)
    before = worker.post(seed="5")
    life = worker.state()["life_id"]
    answer = worker.recycle("swap")
    assert answer.status_code == 202
    assert answer.json() == {
        "boot_id": worker.state()["boot_id"],
        "life_id": life,
        "how": "swap",
        "state": "ready",
    }
    assert worker.recycle("swap").json()["code"] == "conflict"
    assert worker.post(seed="5").content == before.content
    wait_until(lambda: done(worker))
    last = worker.state()["last_recycle"]
    assert (last["outcome"], last["from_life"], last["reason"]) == ("done", life, "a test")
    assert last["to_life"] == worker.state()["life_id"] != life
    assert worker.post(seed="5").content == before.content
    assert worker.metric('sn17_swaps_total{how="swap",outcome="done"}') == 1
    assert worker.metric('sn17_swap_seconds_count{phase="reap"}') == 1
    info = f'sn17_life_info{{boot_id="{worker.state()["boot_id"]}",life_id="{last["to_life"]}"}}'
    assert worker.metric(info) == 1
    assert len(worker.models()) == 1
    answer = worker.admin("recycle", life_id=life, how="swap", reason="late")
    assert (answer.status_code, answer.json()["code"]) == (409, "life_id_mismatch")


def test_one_worker_at_a_time_swaps_on_a_device(tmp_path: Path, new_process: Any, wait_until: Wait) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    shared = {"device_lock_dir": folder, "procedural_load_seconds": 1.5}
    first, second = new_process(**shared), new_process(**shared)
    assert first.recycle("swap").status_code == 202
    refused = second.recycle("swap")
    assert (refused.status_code, refused.json()["code"]) == (409, "device_busy")
    assert refused.json()["retry_after_seconds"] > 0
    assert second.metric('sn17_swaps_total{how="swap",outcome="device_busy"}') == 1
    assert second.state()["last_recycle"] is None
    wait_until(lambda: done(first))
    assert second.recycle("swap").status_code == 202
    wait_until(lambda: done(second))
    assert second.state()["last_recycle"]["outcome"] == "done"


def test_a_replacement_says_warming_and_keeps_the_results(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(procedural_load_seconds=4.0)
    kept = worker.post("t/1", seed="5").content
    assert worker.recycle("replace").status_code == 202
    wait_until(lambda: worker.state()["state"] == "warming")
    assert worker.state()["recycling"] == "replace"
    wait_until(lambda: worker.state()["phase"] == "load")
    assert 0 < worker.state()["start_seconds"] < 60
    assert worker.post("t/2").json()["code"] == "warming_up"
    assert worker.post("t/1", seed="5").content == kept
    wait_until(lambda: done(worker, "replace"))
    assert (worker.state()["state"], worker.state()["phase"]) == ("ready", None)
    assert worker.post("t/2").status_code == 200


def test_verify_keeps_a_process_that_makes_what_a_fresh_one_makes(new_process: Any, wait_until: Wait) -> None:
    worker = new_process()
    life = worker.state()["life_id"]
    assert worker.recycle("swap", verify=True).status_code == 202
    wait_until(lambda: done(worker))
    assert worker.state()["last_recycle"]["outcome"] == "same_output"
    assert worker.state()["last_recycle"]["to_life"] is None
    assert worker.state()["life_id"] == life
    assert len(worker.models()) == 1


def test_verify_swaps_a_process_whose_output_has_fallen(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(
        memory_limit_bytes=2000 * MIB,
        guard="off",
        faults={
            "leak_mib_per_generation": 60,
            "slow_seconds": 1.0,
            "gaussian_decay": True,
            "gaussian_decay_from": 0.05,
            "gaussian_decay_to": 0.2,
        },
    )
    life = worker.state()["life_id"]
    for _ in range(3):
        worker.post()
    # Its own last canary is that of its start: it has never been idle since.
    assert worker.recycle("swap", verify=True).status_code == 202
    wait_until(lambda: done(worker))
    assert worker.state()["last_recycle"]["outcome"] == "done"
    assert worker.state()["life_id"] != life
    assert worker.state()["state"] == "ready", "what was known against the old one is not held against it"


def test_no_room_is_said_and_nothing_is_done(new_process: Any) -> None:
    worker = new_process(memory_limit_bytes=500 * MIB, procedural_ballast_mib=200)
    life = worker.state()["life_id"]
    answer = worker.recycle("swap")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_room")
    assert worker.metric("sn17_swap_room") == 0
    state = worker.state()
    assert (state["life_id"], state["last_recycle"]["outcome"]) == (life, "no_room")
    assert worker.recycle("replace").status_code == 202


def test_a_swap_that_takes_too_long_is_given_up(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(procedural_load_seconds=3, swap_deadline_seconds=1)
    life = worker.state()["life_id"]
    worker.recycle("swap")
    wait_until(lambda: done(worker))
    assert worker.state()["last_recycle"]["outcome"] == "timed_out"
    assert (worker.state()["life_id"], len(worker.models())) == (life, 1)
    assert worker.post().status_code == 200


def test_the_guard_swaps_a_leak_away_without_any_operator(new_process: Any, wait_until: Wait) -> None:
    worker = new_process(
        memory_limit_bytes=2000 * MIB,
        faults={"leak_mib_per_generation": 60, "slow_seconds": 0.8},
        procedural_load_seconds=2,
        guard_swap_after_seconds=0,
    )
    for _ in range(60):
        assert worker.post().status_code == 200, "not one refusal"
        if worker.state()["last_recycle"] is not None:
            break
    last = worker.state()["last_recycle"]
    assert (last["how"], last["outcome"]) == ("swap", "done")
    assert last["reason"].startswith("guard")
    assert worker.metric("sn17_memory_unreclaimable_bytes") < 0.5 * 2000 * MIB


def test_a_worker_that_would_refuse_replaces_its_model_at_once_where_no_swap_fits(
    new_process: Any, wait_until: Wait
) -> None:
    worker = new_process(
        memory_limit_bytes=1000 * MIB,
        procedural_ballast_mib=430,
        faults={"leak_mib_per_generation": 120},
        self_recycle_after_seconds=600,
    )
    boot = worker.state()["boot_id"]
    for _ in range(12):
        wait_until(lambda: worker.post().status_code == 200)
    last = worker.state()["last_recycle"]
    assert (last["how"], last["outcome"], worker.state()["boot_id"]) == ("replace", "done", boot)
    assert last["reason"].startswith("guard")


def test_a_replacement_in_vain_is_followed_by_the_end_of_the_container(new_process: Any) -> None:
    """A fresh model process alone passes the refusing level: it is not the model that holds the memory."""
    worker = new_process(
        memory_limit_bytes=1000 * MIB,
        procedural_ballast_mib=430,
        guard_cleanup_ratio=0.3,
        guard_refuse_ratio=0.4,
        self_recycle_after_seconds=600,
    )
    assert worker.process.wait(60) == 75
    assert "self_recycle" in worker.log()


def test_sigterm_during_a_swap_ends_the_fresh_one_and_delivers_the_job(
    new_process: Any, wait_until: Wait
) -> None:
    worker = new_process(procedural_load_seconds=2, faults={"slow_seconds": 1.5})
    answers: list[httpx2.Response] = []
    poster = threading.Thread(target=lambda: answers.append(worker.post()))
    poster.start()
    wait_until(lambda: worker.state()["job"] is not None)
    worker.recycle("swap")
    wait_until(lambda: len(worker.models()) == 2)
    pids = [worker.fork_server(), *worker.models()]
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pids[2]}").exists())
    poster.join(60)
    assert worker.wait() == 0
    assert answers[0].status_code == 200
    assert len(read_ply(answers[0].content)) > 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_model_that_does_not_start_again_is_said_and_tried_again(
    new_process: Any, wait_until: Wait, tmp_path: Path
) -> None:
    worker = new_process()
    lock = tmp_path / "spool" / "device.lock"
    lock.unlink()
    lock.mkdir()
    os.kill(worker.models()[0], signal.SIGKILL)
    wait_until(lambda: worker.state()["state"] == "degraded")
    assert "ModelFailing" in worker.state()["reason"]
    assert worker.post().json()["code"] == "degraded"
    assert worker.metric('sn17_degraded{reason="model_failing"}') == 1
    assert own_request("GET", f"{worker.ops_url}/ready").status_code == 503
    wait_until(lambda: worker.metric("sn17_model_failing_starts") >= 2)
    assert worker.metric("sn17_model_start_failures_total") >= 2
    assert worker.state()["model_processes"] <= 1
    assert own_request("GET", f"{worker.ops_url}/health").status_code == 200
    lock.rmdir()
    wait_until(lambda: worker.state()["state"] == "ready")
    assert worker.metric("sn17_model_failing_starts") == 0
    assert worker.metric('sn17_degraded{reason="model_failing"}') is None
    assert worker.post().status_code == 200
