"""``sn17-trellis fetch`` and ``check`` against a hub that runs here."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="fetch needs the 'torch' extra")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/some-model"
WEIGHTS = bytes(range(256)) * 2048
ROLES = ("sparse_structure_flow_model", "sparse_structure_decoder", "slat_flow_model", "slat_decoder_gs")
PIPELINE = json.dumps({"args": {"models": {role: f"ckpts/{role}" for role in (*ROLES, "slat_decoder_mesh")}}})


class Hub:
    """As much of the hub's API as a download needs; counts what it is asked and can cut a file short."""

    def __init__(self) -> None:
        self.files = {"pipeline.json": PIPELINE.encode(), "README.md": b"unneeded", "big.bin": b"unneeded"}
        for role in (*ROLES, "slat_decoder_mesh"):
            self.files[f"ckpts/{role}.json"] = b"{}"
            self.files[f"ckpts/{role}.safetensors"] = role.encode() + WEIGHTS
        self.repositories = {REPOSITORY: self.files}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: str | None = None
        self.cuts = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def log_message(self, *_: Any) -> None:
                pass

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append((self.command, path, self.headers.get("Range")))
                if path.startswith("/api/models/"):
                    self._json(hub.describe(path.removeprefix("/api/models/")))
                    return
                repository, _, name = path[1:].partition(f"/resolve/{COMMIT}/")
                files = hub.repositories.get(repository, {})
                if name not in files:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RevisionNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = files[name]
                etag = hashlib.sha256(content).hexdigest()
                wanted, status = content, 200
                if body and (asked := self.headers.get("Range")):
                    wanted, status = content[int(asked.removeprefix("bytes=").split("-")[0]) :], 206
                self.send_response(status)
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(wanted)))
                if status == 206:
                    start = len(content) - len(wanted)
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if not body:
                    return
                if hub.cut == name and hub.cuts:
                    hub.cuts -= 1
                    self.wfile.write(wanted[: len(wanted) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(wanted)

            def _json(self, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(200 if value else 404)
                self.send_header("Content-Type", "application/json")
                if not value:
                    self.send_header("X-Error-Code", "RevisionNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def describe(self, path: str) -> Any:
        owner, name, *rest = path.split("/")
        files = self.repositories.get(f"{owner}/{name}")
        rest = rest or [""]
        if files is None:
            return None
        if len(rest) > 1 and rest[1] not in (COMMIT, "main"):
            return None
        if rest[0] == "tree":
            return [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        siblings = [{"rfilename": each, "size": len(content)} for each, content in files.items()]
        repository = f"{owner}/{name}"
        return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}

    def downloads(self) -> list[str]:
        return [path for command, path, _ in self.requests if command == "GET" and "/resolve/" in path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    instance = Hub()
    yield instance
    instance.close()


def command(folder: Path, hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "2",
    }
    return subprocess.run(
        [sys.executable, "-m", "sn17_trellis", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def fetch(folder: Path, hub: Hub, what: str = f"{REPOSITORY}@{COMMIT}") -> Any:
    return command(folder, hub, "fetch", f"--into={folder / 'models'}", what)


def test_what_the_engine_needs_is_fetched_and_recorded(tmp_path: Path, hub: Hub) -> None:
    done = fetch(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "models" / REPOSITORY
    manifest = json.loads((directory / "sn17-manifest.json").read_text())
    assert (manifest["repository"], manifest["commit"]) == (REPOSITORY, COMMIT)
    wanted = {"pipeline.json", *(f"ckpts/{role}.{end}" for role in ROLES for end in ("json", "safetensors"))}
    assert set(manifest["files"]) == wanted
    for name, recorded in manifest["files"].items():
        content = (directory / name).read_bytes()
        assert content == hub.files[name]
        assert recorded == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_branch_is_looked_up_again_and_downloads_nothing_new(tmp_path: Path, hub: Hub) -> None:
    assert fetch(tmp_path, hub).returncode == 0
    hub.requests.clear()
    assert fetch(tmp_path, hub, f"{REPOSITORY}@main").returncode == 0
    assert hub.downloads() == []
    manifest = json.loads((tmp_path / "models" / REPOSITORY / "sn17-manifest.json").read_text())
    assert (manifest["revision"], manifest["commit"]) == ("main", COMMIT)


def test_a_connection_that_breaks_is_taken_up_where_it_ended(tmp_path: Path, hub: Hub) -> None:
    name = f"ckpts/{ROLES[0]}.safetensors"
    hub.files[name] = content = ROLES[0].encode() + 48 * WEIGHTS
    hub.cut, hub.cuts = name, 1
    done = fetch(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / REPOSITORY / name).read_bytes() == content
    asked = [part for verb, path, part in hub.requests if verb == "GET" and path.endswith(name)]
    assert asked == [None, "bytes=10485760-"]


def test_after_a_failure_only_what_is_missing_is_fetched(tmp_path: Path, hub: Hub) -> None:
    name = f"ckpts/{ROLES[0]}.safetensors"
    hub.cut, hub.cuts = name, 100
    broken = fetch(tmp_path, hub)
    assert broken.returncode == 1
    assert REPOSITORY in broken.stderr
    directory = tmp_path / "models" / REPOSITORY
    assert not (directory / "sn17-manifest.json").exists()
    whole = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    hub.cut = None
    hub.requests.clear()
    assert fetch(tmp_path, hub).returncode == 0
    fetched = {path.partition(f"/resolve/{COMMIT}/")[2] for path in hub.downloads()}
    assert name in fetched
    assert not fetched & whole
    assert (directory / name).read_bytes() == hub.files[name]


def test_the_revision_is_required(tmp_path: Path, hub: Hub) -> None:
    done = fetch(tmp_path, hub, REPOSITORY)
    assert done.returncode == 2
    assert "@REVISION" in done.stderr
    assert hub.requests == []


def test_an_unknown_revision_is_said(tmp_path: Path, hub: Hub) -> None:
    done = fetch(tmp_path, hub, f"{REPOSITORY}@{'f' * 40}")
    assert done.returncode == 1
    assert REPOSITORY in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_the_file_that_does_not_fit_its_manifest(tmp_path: Path, hub: Hub) -> None:
    assert fetch(tmp_path, hub).returncode == 0
    directory = tmp_path / "models" / REPOSITORY
    file = directory / "ckpts" / f"{ROLES[2]}.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    short = command(tmp_path, hub, "check", str(directory))
    assert short.returncode == 1
    assert file.name in short.stderr
    file.write_bytes(b"x" + content[1:])
    other = command(tmp_path, hub, "check", "--hashes", str(directory))
    assert other.returncode == 1
    assert "SHA-256" in other.stderr
    assert file.name in other.stderr


def test_what_lies_there_whole_is_kept_without_a_hub(tmp_path: Path, hub: Hub) -> None:
    assert fetch(tmp_path, hub).returncode == 0
    hub.requests.clear()
    assert fetch(tmp_path, hub).returncode == 0
    assert hub.requests == []


def test_a_file_that_changed_on_disk_is_fetched_again(tmp_path: Path, hub: Hub) -> None:
    """Of the same size, and with the date it had: only its hash tells."""
    assert fetch(tmp_path, hub).returncode == 0
    file = tmp_path / "models" / REPOSITORY / "ckpts" / f"{ROLES[1]}.safetensors"
    stat = file.stat()
    file.write_bytes(b"x" + file.read_bytes()[1:])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fetch(tmp_path, hub).returncode == 0
    assert file.read_bytes() == hub.files[f"ckpts/{ROLES[1]}.safetensors"]


@pytest.fixture
def referring(hub: Hub) -> Hub:
    """The text repository takes its decoders from another one, and names no text model."""
    elsewhere = {"pipeline.json": PIPELINE.encode(), "README.md": b"unneeded"}
    models = json.loads(PIPELINE)["args"]["models"]
    for role in (ROLES[1], ROLES[3]):
        models[role] = f"microsoft/elsewhere/ckpts/{role}"
        for end in ("json", "safetensors"):
            elsewhere[f"ckpts/{role}.{end}"] = hub.files.pop(f"ckpts/{role}.{end}")
    elsewhere["ckpts/another.safetensors"] = b"unneeded"
    sampler = {"name": "FlowEulerGuidanceIntervalSampler"}
    args = {
        "models": models,
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0], "std": [1.0]},
    }
    hub.files["pipeline.json"] = json.dumps({"name": "TrellisTextTo3DPipeline", "args": args}).encode()
    clip = {"config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": b"unneeded"}
    hub.repositories |= {"microsoft/elsewhere": elsewhere, "openai/clip-vit-large-patch14": clip}
    return hub


def files_under(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def test_what_else_is_needed_is_named(tmp_path: Path, referring: Hub) -> None:
    done = fetch(tmp_path, referring)
    assert done.returncode == 0, done.stderr
    assert "needs 2 networks of microsoft/elsewhere" in done.stderr
    assert "its conditioning model of openai/clip-vit-large-patch14" in done.stderr
    again = command(
        tmp_path,
        referring,
        "fetch",
        f"--into={tmp_path / 'models'}",
        *(f"{name}@main" for name in ("microsoft/elsewhere", "openai/clip-vit-large-patch14")),
    )
    assert again.returncode == 0, again.stderr
    decoders = tmp_path / "models" / "microsoft" / "elsewhere" / "ckpts"
    assert (decoders / f"{ROLES[1]}.safetensors").is_file()
    assert "needs" not in fetch(tmp_path, referring).stderr


def test_a_repository_whose_pipeline_names_nothing_is_said(tmp_path: Path, hub: Hub) -> None:
    hub.files["pipeline.json"] = b"{}"
    done = fetch(tmp_path, hub)
    assert done.returncode == 1
    assert done.stderr.endswith("its pipeline.json names no models\n")


def test_what_else_is_needed_is_fetched_and_nothing_more(tmp_path: Path, referring: Hub) -> None:
    models = tmp_path / "models"
    arguments = ("fetch", "--needed=main", f"--into={models}", f"{REPOSITORY}@{COMMIT}")
    done = command(tmp_path, referring, *arguments)
    assert done.returncode == 0, done.stderr
    assert "needs" not in done.stderr
    decoders = {f"ckpts/{role}.{end}" for role in (ROLES[1], ROLES[3]) for end in ("json", "safetensors")}
    assert files_under(models / "microsoft" / "elsewhere") == {*decoders, "sn17-manifest.json"}
    assert files_under(models / "openai" / "clip-vit-large-patch14") == {
        *("config.json", "model.safetensors", "sn17-manifest.json")
    }
    manifest = json.loads((models / "microsoft" / "elsewhere" / "sn17-manifest.json").read_text())
    assert (manifest["commit"], manifest["partial"]) == (COMMIT, True)
    referring.requests.clear()
    assert command(tmp_path, referring, *arguments).returncode == 0
    assert referring.requests == []


def test_a_repository_that_is_not_there_is_said(tmp_path: Path, referring: Hub) -> None:
    del referring.repositories["microsoft/elsewhere"]
    arguments = ("fetch", "--needed=main", f"--into={tmp_path / 'models'}", f"{REPOSITORY}@{COMMIT}")
    done = command(tmp_path, referring, *arguments)
    assert done.returncode == 1
    assert "microsoft/elsewhere: " in done.stderr
    assert "Traceback" not in done.stderr
