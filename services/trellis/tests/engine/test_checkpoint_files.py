"""Where the loader looks for files, and what it says about files that it cannot use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from safetensors.torch import load_file, save_file  # noqa: E402
from sn17_trellis.engine.checkpoint import Repositories, locate, read_pipeline  # noqa: E402
from sn17_trellis.engine.conditioning import model_directory  # noqa: E402
from sn17_trellis.engine.config import ROLES  # noqa: E402
from sn17_trellis.engine.errors import CheckpointError, CheckpointMissingError  # noqa: E402
from sn17_trellis.engine.pipeline import check_checkpoint, load_pipeline  # noqa: E402
from sn17_trellis.torch_backend import bundled_checkpoint  # noqa: E402

FLOW, DECODER, LATENTS, GAUSSIANS = ROLES


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundled_checkpoint(), tmp_path / "models" / "someone" / "text"))


def change(file: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def cross(copy: Path, owner: str, *, folder: Path) -> None:
    """Move both decoders to `folder` and refer to them as <owner>/elsewhere."""
    (folder / "ckpts").mkdir(parents=True)
    for role in (DECODER, GAUSSIANS):
        for end in ("json", "safetensors"):
            (copy / "ckpts" / f"{role}.{end}").rename(folder / "ckpts" / f"{role}.{end}")
        reference = f"{owner}/elsewhere/ckpts/{role}"
        change(copy / "pipeline.json", lambda v, r=role, e=reference: v["args"]["models"].update({r: e}))


@pytest.mark.parametrize("named", ["microsoft", "JeffreyXiang"])
@pytest.mark.parametrize("stored", ["microsoft/elsewhere", "JeffreyXiang/elsewhere", "elsewhere"])
def test_networks_of_another_repository(copy: Path, tmp_path: Path, named: str, stored: str) -> None:
    """Both accounts that published the repositories stand for each other, wherever the folder lies."""
    cross(copy, named, folder=tmp_path / "roots" / stored)
    check_checkpoint(copy, Repositories((tmp_path / "roots",)))
    with pytest.raises(CheckpointMissingError, match=f"{named}/elsewhere"):
        check_checkpoint(copy)


def test_a_repository_beside_the_checkpoint_is_found_without_being_told(copy: Path) -> None:
    cross(copy, "microsoft", folder=copy.parent.parent / "microsoft" / "elsewhere")
    check_checkpoint(copy)


def test_a_repository_can_be_mapped_to_any_folder(copy: Path, tmp_path: Path) -> None:
    cross(copy, "JeffreyXiang", folder=tmp_path / "a" / "b")
    check_checkpoint(copy, Repositories(known={"microsoft/elsewhere": tmp_path / "a" / "b"}))


def test_accounts_of_others_are_not_mixed_up(copy: Path, tmp_path: Path) -> None:
    cross(copy, "someoneelse", folder=tmp_path / "roots" / "microsoft" / "elsewhere")
    with pytest.raises(CheckpointMissingError, match="someoneelse/elsewhere"):
        check_checkpoint(copy, Repositories((tmp_path / "roots",)))


def test_a_path_that_leaves_the_checkpoint_is_refused(copy: Path) -> None:
    with pytest.raises(CheckpointError, match="leaves its directory"):
        locate(copy, FLOW, "../../etc/passwd", Repositories())


@pytest.mark.parametrize("prefix", ["", "Elastic"])
def test_class_names_with_and_without_elastic(copy: Path, prefix: str) -> None:
    for role in ROLES:
        file = copy / "ckpts" / f"{role}.json"
        change(file, lambda v: v.update(name=prefix + v["name"].removeprefix("Elastic")))
    check_checkpoint(copy)


@pytest.mark.parametrize("kind", ["missing", "null"])
def test_without_a_text_model_the_released_one_is_meant(copy: Path, tmp_path: Path, kind: str) -> None:
    def forget(value: Any) -> None:
        del value["args"]["text_cond_model"]
        if kind == "null":
            value["args"]["text_cond_model"] = None

    change(copy / "pipeline.json", forget)
    config = check_checkpoint(copy)
    assert config.conditioner == "openai/clip-vit-large-patch14"
    with pytest.raises(CheckpointMissingError, match="openai/clip-vit-large-patch14"):
        load_pipeline(copy, torch.device("cpu"))
    released = tmp_path / "models" / "openai" / "clip-vit-large-patch14"
    released.parent.mkdir()
    (copy / "text").rename(released)
    assert model_directory(copy, config.conditioner, Repositories()) == released
    assert load_pipeline(copy, torch.device("cpu")).kind == "text"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "missing key"),
        ("unknown", "unknown key"),
        ("shape", "shape"),
        ("dtype", "not a float type"),
        ("truncated", "not a complete safetensors file"),
        ("empty", "not a complete safetensors file"),
    ],
)
def test_weights_that_do_not_fit_name_file_and_key(copy: Path, role: str, damage: str, said: str) -> None:
    file = copy / "ckpts" / f"{role}.safetensors"
    weights = load_file(file)
    key = sorted(weights)[len(weights) // 2]
    if damage == "missing":
        save_file({name: value for name, value in weights.items() if name != key}, file)
    elif damage == "unknown":
        key = "something.else"
        save_file({**weights, key: torch.zeros(1)}, file)
    elif damage == "shape":
        save_file({**weights, key: torch.zeros(3, 5, 7)}, file)
    elif damage == "dtype":
        save_file({**weights, key: weights[key].to(torch.int32)}, file)
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "empty" else -7])
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(copy)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    if damage not in ("truncated", "empty"):
        assert key in str(caught.value)


def test_a_file_is_refused_before_any_weight_is_moved(copy: Path) -> None:
    """The last of the four files is broken; the first three stay where they are."""
    file = copy / "ckpts" / f"{GAUSSIANS}.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    read: list[Path] = []
    with pytest.raises(CheckpointError, match=f"{GAUSSIANS}.safetensors"):
        load_pipeline(copy, torch.device("cpu"), read=lambda file, _keys: read.append(file) or {})
    assert read == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("pipeline.json", "{", "not readable as JSON"),
        ("pipeline.json", '{"name": "TrellisTextTo3DPipeline", "args": {}}', "args.models"),
        ("pipeline.json", '{"name": "Another", "args": {}}', "name"),
        (f"ckpts/{FLOW}.json", '{"name": "SLatMeshDecoder", "args": {}}', "SLatMeshDecoder"),
        (f"ckpts/{FLOW}.json", '{"name": "SLatFlowModel", "args": {}}', "cannot serve"),
        (f"ckpts/{FLOW}.json", '{"args": {}}', "name"),
    ],
)
def test_descriptions_that_do_not_fit(copy: Path, file: str, text: str, said: str) -> None:
    (copy / file).write_text(text)
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(copy)
    assert str(copy / file) in str(caught.value)
    assert said in str(caught.value)


def test_networks_that_do_not_fit_each_other(copy: Path) -> None:
    change(copy / "pipeline.json", lambda v: v["args"]["slat_normalization"].update(mean=[0.0] * 7))
    with pytest.raises(CheckpointError, match="structured latent channels"):
        check_checkpoint(copy)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissingError, match=r"pipeline\.json: no such file"):
        read_pipeline(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123456\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b'{"error": "Access to this model is restricted"}', "JSON text"),
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(100), "nothing pickled"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (bytes(5), "not a complete safetensors file: "),
    ],
    ids=["lfs", "page", "json", "empty", "torch", "gzip", "unknown"],
)
def test_what_lies_in_place_of_weights_is_named(copy: Path, content: bytes, said: str) -> None:
    file = copy / "ckpts" / "slat_flow_model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="slat_flow_model") as told:
        check_checkpoint(copy, Repositories())
    assert said in str(told.value)
