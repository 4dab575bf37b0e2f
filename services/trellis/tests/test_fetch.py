"""``sn17-trellis fetch`` and ``check`` against a hub that runs here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_hub import COMMIT, PIPELINE, REPOSITORY, ROLES, WEIGHTS, Hub, command

pytest.importorskip("huggingface_hub", reason="fetch needs the 'torch' extra")


@pytest.fixture
def hub() -> Iterator[Hub]:
    instance = Hub()
    yield instance
    instance.close()


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
    """All of it at once, and not as a success."""
    done = fetch(tmp_path, referring)
    assert done.returncode == 1, done.stderr
    assert (
        "needs 2 networks of microsoft/elsewhere: give --needed microsoft/elsewhere@REVISION" in done.stderr
    )
    assert "the conditioning model of openai/clip-vit-large-patch14: give --needed" in done.stderr
    assert done.stderr.endswith("not complete: 0 not fetched, 2 repositories missing\n")
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
    assert "its pipeline.json names no models\n" in done.stderr


@pytest.mark.parametrize(
    "revisions",
    [
        ("--needed=main",),
        (f"--needed=microsoft/elsewhere@{COMMIT}", "--needed=openai/clip-vit-large-patch14@main"),
        (f"--needed=microsoft/elsewhere@{COMMIT}", "--needed=main"),
    ],
)
def test_what_else_is_needed_is_fetched_and_nothing_more(
    tmp_path: Path, referring: Hub, revisions: tuple[str, ...]
) -> None:
    models = tmp_path / "models"
    arguments = ("fetch", *revisions, f"--into={models}", f"{REPOSITORY}@{COMMIT}")
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


def test_one_repository_that_fails_does_not_hide_what_else_is_missing(tmp_path: Path, referring: Hub) -> None:
    arguments = ("--needed=openai/clip-vit-large-patch14@nowhere", f"{REPOSITORY}@{COMMIT}", "a/b@main")
    done = command(tmp_path, referring, "fetch", f"--into={tmp_path / 'models'}", *arguments)
    assert done.returncode == 1
    for part in ("a/b@main: ", "openai/clip-vit-large-patch14@nowhere: ", "microsoft/elsewhere@REVISION"):
        assert part in done.stderr, done.stderr
    assert done.stderr.endswith("not complete: 2 not fetched, 2 repositories missing\n")
    assert "Traceback" not in done.stderr
