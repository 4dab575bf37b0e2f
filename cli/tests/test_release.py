"""Commands that reach a release: kubectl's flags, and the miner behind its port-forward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kubectl_fake import fake_kubectl, reaches
from sn17_contract.tasks import Outcome, TaskKind
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.views import list_tasks, open_story
from sn17_splats import Splats, encode_spz, read_splat


def spz() -> bytes:
    rng = np.random.default_rng(1)
    columns = [
        rng.normal(size=shape).astype(np.float32) for shape in ((64, 3), (64, 3), (64, 4), (64,), (64, 3))
    ]
    return encode_spz(Splats(*columns))


class Release:
    """A miner's ops port over a journal with one task, and a kubectl that leads to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.asset = folder, folder / "asked", spz()
        journal = Journal(folder / "journal.sqlite")
        task, _ = journal.task_pulled(
            task_id="t1",
            validator="5Validator",
            kind=TaskKind.TEXT,
            prompt="a red cube",
            threshold=0.6,
            throttle=30,
            assigned_at=1,
        )
        journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=0.8, detail="")
        journal.close()
        path = folder / "journal.sqlite"
        asset = self.asset

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answers: dict[str, Any] = {
                    "/v1/tasks": lambda: list_tasks(path, limit=20).model_dump_json(by_alias=True).encode(),
                    "/v1/tasks/1": lambda: open_story(path, 1).model_dump_json().encode(),
                    "/v1/tasks/1/asset": lambda: asset,
                }
                found = answers.get(self.path.partition("?")[0])
                good = self.headers.get("Authorization") == "Bearer secret"
                code = 401 if not good else 200 if found else 404
                told = json.dumps({"code": "x", "detail": "not this one"}).encode()
                body = found() if found and good else told
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        fake_kubectl(folder, self.log, self.server.server_port)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **reaches(self.folder), **environment}
        command = [sys.executable, "-m", "sn17", *arguments]
        return subprocess.run(
            command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )

    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    made = Release(tmp_path_factory.mktemp("release"))
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_tasks_of_a_release_are_those_of_its_miner(release: Release) -> None:
    done = release.run("tasks", "--release", "sn17", "--json")
    assert done.returncode == 0, done.stderr
    assert [task["task_id"] for task in json.loads(done.stdout)["tasks"]] == ["t1"]
    told = release.run("tasks", "explain", "1", "--release", "sn17")
    assert "a red cube" in told.stdout
    before = release.run("tasks", "--release", "sn17", "explain", "1")
    assert before.stdout == told.stdout


def test_the_asset_of_a_task_is_written_as_its_name_says(release: Release) -> None:
    done = release.run("tasks", "get", "1", "--release", "sn17", "-o", "cube.spz")
    assert done.returncode == 0, done.stderr
    assert (release.folder / "cube.spz").read_bytes() == release.asset
    done = release.run("tasks", "get", "1", "--release", "sn17", "-o", "cube.ply", "--json")
    assert json.loads(done.stdout)["gaussians"] == 64
    assert len(read_splat((release.folder / "cube.ply").read_bytes())) == 64
    missing = release.run("tasks", "get", "7", "--release", "sn17", "-o", "other.ply")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert not (release.folder / "other.ply").exists()
    wrong = release.run("tasks", "get", "1", "--release", "sn17", "-o", "cube.obj")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert ".ply, .spz or .splat" in wrong.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["--namespace", "ns-own"]),
        (["-n", "mine"], ["--namespace", "mine"]),
        (["--kubeconfig", "other.yaml"], ["--namespace", "ns-other", "--kubeconfig", "other.yaml"]),
        (["--context", "own"], ["--namespace", "ns-own", "--context", "own"]),
    ],
)
@pytest.mark.parametrize(
    "command", [["tasks"], ["tasks", "explain", "1"], ["status"], ["accept", "--smoke"], ["watch", "--past"]]
)
def test_where_a_release_is_means_the_same_to_every_command(
    release: Release, command: list[str], options: list[str], expected: list[str]
) -> None:
    release.log.write_text("")
    release.run(*command, "--release", "nowhere", *options)
    asked = release.asked()
    assert asked
    for words in asked:
        at = words.index("--namespace")
        assert words[at : at + len(expected)] == expected


@pytest.mark.parametrize(
    ("content", "environment", "words"),
    [
        (None, {"KUBECONFIG": "missing.yaml"}, "missing.yaml does not exist"),
        (None, {"KUBECONFIG": "", "HOME": "/nowhere"}, "/nowhere/.kube/config does not exist"),
        ("", {"KUBECONFIG": "broken.yaml"}, "broken.yaml is empty"),
        ("{", {"KUBECONFIG": "broken.yaml"}, "broken.yaml is no kubeconfig"),
        ("just text", {"KUBECONFIG": "broken.yaml"}, "holds no mapping"),
        ("contexts: 5", {"KUBECONFIG": "broken.yaml"}, "contexts is no list"),
        ("current-context: x", {"KUBECONFIG": "broken.yaml"}, "there is no context 'x'"),
        ("contexts: [{name: a, context: {}}]", {"KUBECONFIG": "broken.yaml"}, "has: a; give --context"),
        (b"\xff\xfe\x00", {"KUBECONFIG": "broken.yaml"}, "broken.yaml is no kubeconfig"),
        (None, {"KUBECONFIG": "bin"}, "bin: Is a directory"),
    ],
)
@pytest.mark.parametrize(
    "command", [["tasks", "--release", "x"], ["status", "--release", "x"], ["cordon", "w1"]]
)
def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(
    release: Release, content: Any, environment: dict[str, str], words: str, command: list[str]
) -> None:
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (release.folder / "broken.yaml").write_bytes(data)
    done = release.run(*command, **environment)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_kubeconfig_in_the_environment_counts_as_none(release: Release) -> None:
    home = release.folder / "home"
    (home / ".kube").mkdir(parents=True)
    (home / ".kube" / "config").write_text((release.folder / "other.yaml").read_text())
    release.log.write_text("")
    release.run("tasks", "--release", "nowhere", KUBECONFIG="", HOME=str(home))
    assert "ns-other" in release.asked()[0]
