"""``sn17 generate`` as a process, against a real gateway whose worker the test drives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kubectl_fake import fake_kubectl, reaches
from sn17.up.gateway import KEY_FILE
from sn17_http import own_request
from sn17_splats import read_splat

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "services/gateway/tests"))
from gateway_client import FleetWorker, splat_bytes
from gateway_process import GUEST, GatewayProcess

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f00"
    "05000201fd5ad0700000000049454e44ae426082"
)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    folder = tmp_path / "gateway"
    folder.mkdir()
    with GatewayProcess(folder) as running:
        yield running


class Worker:
    """Answers what it is asked for, in a thread, by ``answer(prompt)``: bytes, or a text why it failed."""

    def __init__(self, gateway: GatewayProcess, answer: Callable[[str], bytes | str]) -> None:
        self.seen: list[dict[str, object]] = []
        self._fleet, self._answer, self._stop = FleetWorker(gateway.url), answer, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self._stop.wait(0.05):
            try:
                offers = self._fleet.pull()
            except Exception:
                continue
            for offer in offers:
                self.seen.append(offer)
                found = self._answer(str(offer.get("prompt")))
                if isinstance(found, bytes):
                    self._fleet.deliver(offer, found)
                else:
                    self._fleet.fail(offer, found)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def start(
    gateway: GatewayProcess, folder: Path, *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sn17", "generate", *arguments]
    env = {**os.environ, "SN17_GATEWAY_URL": gateway.url, "SN17_GATEWAY_KEY": GUEST, **environment}
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(gateway: GatewayProcess, folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = start(gateway, folder, *arguments, **environment)
    out, error = done.communicate(timeout=100)
    return done.returncode, out, error


def until(happened: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("output", "options"), [("cube.ply", []), ("cube.spz", []), ("cube.spz", ["--spz"]), ("-", ["--spz"])]
)
def test_a_prompt_becomes_a_file(
    gateway: GatewayProcess, tmp_path: Path, output: str, options: list[str]
) -> None:
    asset = splat_bytes(3)
    with Worker(gateway, lambda prompt: asset) as worker:
        command = ["a red cube", "-o", output, "--seed", "7", *options]
        done = start(gateway, tmp_path, *command)
        assert done.stdout is not None
        shown = done.stdout.buffer.read()
        assert done.wait(100) == 0
    assert (worker.seen[0]["prompt"], worker.seen[0]["seed"]) == ("a red cube", 7)
    if output == "-":
        assert shown == asset
        return
    made = (tmp_path / output).read_bytes()
    assert len(read_splat(made)) == len(read_splat(asset))
    assert (made == asset) == output.endswith(".spz")
    assert b"64 gaussians" in shown
    assert not list(tmp_path.glob(".*"))


def test_a_picture_is_sent_as_it_is(gateway: GatewayProcess, tmp_path: Path) -> None:
    (tmp_path / "chair.png").write_bytes(PICTURE)
    with Worker(gateway, lambda prompt: splat_bytes()) as worker:
        code, out, error = run(gateway, tmp_path, "--image", "chair.png", "--json")
    assert code == 0, error
    assert (worker.seen[0].get("prompt"), "image" in worker.seen[0]) == (None, True)
    (told,) = json.loads(out)
    assert (told["file"], told["made"], told["gaussians"]) == ("chair.ply", True, 64)


def test_several_prompts_are_made_into_a_folder_and_what_is_there_is_left(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    (tmp_path / "prompts").write_text("# three\na red cube\n\n  a blue cube  \na broken cube\n")
    answers = {"a broken cube": "no geometry"}
    with Worker(gateway, lambda prompt: answers.get(prompt) or splat_bytes()) as worker:
        code, out, error = run(gateway, tmp_path, "--prompts", "prompts", "-o", "made", "--spz")
        assert code == 1
        assert "2 of 3 made" in out
        assert "not made: no geometry" in error
        names = sorted(path.name for path in (tmp_path / "made").iterdir())
        assert names == ["001-a-red-cube.spz", "002-a-blue-cube.spz"]
        answers.clear()
        code, out, error = run(gateway, tmp_path, "--prompts", "prompts", "-o", "made", "--spz")
    assert code == 0, error
    assert "2 of 3 are there already" in error
    assert [offer["prompt"] for offer in worker.seen].count("a red cube") == 1


def test_a_gateway_that_goes_away_is_waited_for(gateway: GatewayProcess, tmp_path: Path) -> None:
    done = start(gateway, tmp_path, "a red cube", "-o", "cube.ply")
    assert done.stderr is not None
    while "waits for a worker" not in (line := done.stderr.readline()):
        assert line
    gateway.kill()
    while "connection lost" not in (line := done.stderr.readline()):
        assert line
    gateway.start()
    with Worker(gateway, lambda prompt: splat_bytes()) as worker:
        out, error = done.communicate(timeout=100)
    assert done.returncode == 0, error
    assert len(worker.seen) == 1
    assert "64 gaussians" in out


def test_a_gateway_that_was_never_there_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("a red cube\na blue cube\n")
    command = [sys.executable, "-m", "sn17", "generate", "--prompts", "prompts", "-o", "made"]
    command += ["--url", "http://127.0.0.1:9", "--key", GUEST]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("sn17 generate: no gateway answers at http://127.0.0.1:9"), done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_under_way_at_ctrl_c_is_fetched_by_the_same_command(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    done = start(gateway, tmp_path, "a red cube", "-o", "cube.ply")
    assert done.stderr is not None
    while "waits for a worker" not in (line := done.stderr.readline()):
        assert line
    done.send_signal(signal.SIGINT)
    _, error = done.communicate(timeout=60)
    assert done.returncode == 130
    assert "Traceback" not in error
    task = error.partition("cube.ply: task ")[2].split()[0]
    assert "1 under way; the same command goes on with them" in error
    with Worker(gateway, lambda prompt: splat_bytes()) as worker:
        code, _, error = run(gateway, tmp_path, "a red cube", "-o", "cube.ply")
    assert code == 0
    assert [offer["id"] for offer in worker.seen] == [task]
    assert f"picks up task {task}" in error
    assert not list(tmp_path.glob(".*"))


class LosesAnswers:
    """A proxy that passes everything on, but keeps the first ``lost`` answers to add_task for itself."""

    def __init__(self, gateway: GatewayProcess, lost: int) -> None:
        proxy = self
        self.kept: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.pass_on(None)

            def do_POST(self) -> None:
                self.pass_on(self.rfile.read(int(self.headers["content-length"])))

            def pass_on(self, body: bytes | None) -> None:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                answer = own_request(self.command, f"{gateway.url}{self.path}", content=body, headers=headers)
                if self.path == "/add_task" and len(proxy.kept) < lost:
                    proxy.kept.append(answer.json()["id"])
                    self.close_connection = True
                    return
                self.send_response(answer.status_code)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_task_whose_answer_was_lost_is_handed_in_once(gateway: GatewayProcess, tmp_path: Path) -> None:
    proxy = LosesAnswers(gateway, lost=3)
    command = ["a red cube", "-o", "cube.ply", "--url", proxy.url]
    done = start(gateway, tmp_path, *command)
    until(lambda: proxy.kept)
    done.kill()
    done.communicate(timeout=60)
    with Worker(gateway, lambda prompt: splat_bytes()) as worker:
        code, _, error = run(gateway, tmp_path, *command)
    proxy.close()
    assert code == 0, error
    assert "is handed in again" in error
    assert [offer["id"] for offer in worker.seen] == proxy.kept[:1]
    assert len(set(proxy.kept)) == 1
    assert not list(tmp_path.glob(".*"))


def test_a_note_of_another_wish_or_a_damaged_one_is_not_followed(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    with Worker(gateway, lambda prompt: splat_bytes()) as worker:
        for note in (b"", b"{", b'{"schema": "other"}', b"\xff"):
            (tmp_path / ".cube.ply.sn17-task").write_bytes(note)
            assert run(gateway, tmp_path, "a red cube", "-o", "cube.ply")[0] == 0
    assert len({offer["id"] for offer in worker.seen}) == 4


def test_the_gateway_of_a_run_on_this_machine_is_found_with_its_key(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    folder = tmp_path / ".sn17" / "20260101-000000-a"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "gateway.json").write_text((gateway.folder / "ready.json").read_text())
    (folder / KEY_FILE).write_text(GUEST + "\n")
    with Worker(gateway, lambda prompt: splat_bytes()):
        command = [sys.executable, "-m", "sn17", "generate", "a red cube"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_splat((tmp_path / "a-red-cube.ply").read_bytes())) == 64


def test_the_gateway_of_a_release_is_reached_by_a_port_forward(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    fake_kubectl(tmp_path, tmp_path / "asked", gateway.ports["port"])
    where = {**reaches(tmp_path), "SN17_GATEWAY_URL": ""}
    with Worker(gateway, lambda prompt: splat_bytes()) as worker:
        command = ["a red cube", "--release", "sn17", "-o", "cube.spz"]
        code, out, error = run(gateway, tmp_path, *command, **where)
        assert code == 0, error
        assert "64 gaussians" in out
        code, _, error = run(gateway, tmp_path, "a cube", "--release", "nowhere", **where)
        assert (code, error.count("\n")) == (2, 1)
    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    assert "app.kubernetes.io/instance=sn17,app.kubernetes.io/component=gateway" in asked[0]
    assert asked[1][:5] == ["port-forward", "--namespace", "ns-own", "pod/sn17-0", ":8404"]
    assert len(worker.seen) == 1


def test_what_a_worker_makes_that_is_no_splat_is_not_written(gateway: GatewayProcess, tmp_path: Path) -> None:
    with Worker(gateway, lambda prompt: b"nonsense" * 99):
        code, _, error = run(gateway, tmp_path, "a red cube", "-o", "cube.ply")
    assert code == 1
    assert "cube.ply: not made: " in error
    assert not list(tmp_path.glob("*.ply"))


def test_mistakes_are_one_sentence(gateway: GatewayProcess, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    wrong = "7f1c2a34-5b6d-4e7f-8a9b-0c1d2e3f4a5b"
    cases: list[tuple[list[str], dict[str, str], str]] = [
        ([], {}, "give one of"),
        (["a cube", "--image", "x.png"], {}, "give one of"),
        (["a cube", "-o", "cube.obj"], {}, ".ply, .spz or .splat"),
        (["a cube", "-o", "cube.ply", "--spz"], {}, "contradict"),
        (["a cube", "-o", "nowhere/cube.ply"], {}, "nowhere does not exist"),
        (["--image", "missing.png"], {}, "missing.png: No such file"),
        (["--prompts", "empty"], {}, "holds no prompt"),
        (["--prompts", "binary"], {}, "no text in UTF-8"),
        (["--prompts", "missing"], {}, "missing: No such file"),
        (["a cube", "--key-file", "missing"], {"SN17_GATEWAY_KEY": ""}, "missing: No such file"),
        (["a cube"], {"SN17_GATEWAY_KEY": ""}, "wants a key"),
        (["a cube"], {"SN17_GATEWAY_KEY": wrong}, "401"),
        (["a cube"], {"SN17_GATEWAY_KEY": "short"}, "400"),
        (["a _ cube"], {}, "the prompt may hold letters"),
        (["--image", "binary"], {}, "not a PNG, JPEG or WebP"),
    ]
    for arguments, environment, words in cases:
        code, out, error = run(gateway, tmp_path, *arguments, **environment)
        assert (code, out) == (2, ""), (arguments, error)
        assert words in error, (arguments, error)
        assert "Traceback" not in error
    for url in ("ftp://x", "nonsense"):
        command = [sys.executable, "-m", "sn17", "generate", "a cube", "--url", url, "--key", GUEST]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_gateway_that_never_answers_ends_in_time_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sn17", "generate", "a cube", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(
        [*command, "--key", GUEST, "--timeout", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no asset within 2 s: no connection" in done.stderr
