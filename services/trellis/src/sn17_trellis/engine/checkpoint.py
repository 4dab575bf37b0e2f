"""Official checkpoint directories: find the files, check them against the networks, fill the networks.

A directory holds `pipeline.json` and `ckpts/<name>.json` + `ckpts/<name>.safetensors`. A model path in
`pipeline.json` is relative to the directory or crosses repositories (`<owner>/<repository>/ckpts/<name>`).
Everything is read from local files. All checks run before the first byte goes to a GPU.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from sn17_trellis.engine.config import (
    OWNERS,
    ROLES,
    GaussianDecoderConfig,
    LatentFlowConfig,
    ModelFile,
    PipelineConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
)
from sn17_trellis.engine.errors import CheckpointError, CheckpointMissingError
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.stand_ins import what_it_is
from sn17_trellis.engine.structure import StructureDecoder, StructureFlow
from sn17_trellis.engine.weights import STORED, Reader

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

BLOCK_BYTES = 65_536
BLOCKS = 256
WHOLE_BYTES = BLOCKS * BLOCK_BYTES

_CLASSES: dict[str, tuple[str, type[BaseModel], type[nn.Module]]] = {
    "SparseStructureFlowModel": (ROLES[0], StructureFlowConfig, StructureFlow),
    "SparseStructureDecoder": (ROLES[1], StructureDecoderConfig, StructureDecoder),
    "SLatFlowModel": (ROLES[2], LatentFlowConfig, LatentFlow),
    "SLatGaussianDecoder": (ROLES[3], GaussianDecoderConfig, GaussianDecoder),
}


@dataclass(frozen=True, slots=True)
class ModelPath:
    """The two files of one network."""

    role: str
    config: Path
    weights: Path


@dataclass(frozen=True, slots=True)
class Repositories:
    """Where repositories lie on this machine: directories searched for `<owner>/<name>`, `<name>`."""

    roots: tuple[Path, ...] = ()
    known: Mapping[str, Path] = field(default_factory=dict)

    def find(self, repository: str) -> list[Path]:
        """Candidate directories of `<owner>/<name>`, best first, under either publishing account."""
        owner, _, name = repository.partition("/")
        owners = [owner, *(other for other in OWNERS if owner in OWNERS and other != owner)]
        found = [self.known[f"{each}/{name}"] for each in owners if f"{each}/{name}" in self.known]
        for root in self.roots:
            found += [root / each / name for each in owners]
            found.append(root / name)
        return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointMissingError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'value'}: {first['msg']}"


def read_pipeline(directory: Path) -> PipelineConfig:
    """`pipeline.json` of a checkpoint directory. Raises CheckpointError."""
    path = directory / "pipeline.json"
    try:
        config = PipelineConfig.model_validate(_read_json(path))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {_first_problem(error)}") from error
    for role in ROLES:
        if role not in config.args.models:
            raise CheckpointError(f"{path}: args.models.{role} is missing")
    return config


def locate(directory: Path, role: str, entry: str, repositories: Repositories) -> ModelPath:
    """The files behind a model path of `pipeline.json`; the error lists every place that was tried."""
    parts = entry.strip("/").split("/")
    if ".." in parts:
        raise CheckpointError(
            f"{directory / 'pipeline.json'}: args.models.{role} leaves its directory: {entry}"
        )
    bases = [directory.joinpath(*parts)]
    if len(parts) > 2:
        near = Repositories((directory.parent, directory.parent.parent))
        repository = "/".join(parts[:2])
        places = repositories.find(repository) + near.find(repository)
        bases += [place.joinpath(*parts[2:]) for place in places]
    for base in bases:
        config, weights = base.with_name(base.name + ".json"), base.with_name(base.name + ".safetensors")
        if config.is_file() and weights.is_file():
            return ModelPath(role, config, weights)
    tried = ", ".join(dict.fromkeys(f"{base}.json" for base in bases))
    raise CheckpointMissingError(
        f"{directory / 'pipeline.json'}: args.models.{role} = {entry!r}: no .json and .safetensors found; "
        f"tried {tried}"
    )


def build(path: ModelPath) -> nn.Module:
    """The network of one `.json`, on the meta device (no memory)."""
    try:
        described = ModelFile.model_validate(_read_json(path.config))
    except ValidationError as error:
        raise CheckpointError(f"{path.config}: {_first_problem(error)}") from error
    role, config_type, module_type = _CLASSES.get(described.name.removeprefix("Elastic"), (None, None, None))
    if role is None or config_type is None or module_type is None:
        raise CheckpointError(f"{path.config}: name: unknown network {described.name!r}")
    if role != path.role:
        raise CheckpointError(f"{path.config}: name: {described.name!r} cannot serve as {path.role}")
    try:
        config = config_type.model_validate(described.args)
    except ValidationError as error:
        raise CheckpointError(f"{path.config}: args.{_first_problem(error)}") from error
    with torch.device("meta"):
        return module_type(config)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            yield handle
    except (OSError, SafetensorError) as error:
        found = what_it_is(path)
        said = f", but {found}" if found else f": {error}"
        raise CheckpointError(f"{path}: not a complete safetensors file{said}") from error


def verify(module: nn.Module, path: ModelPath) -> dict[str, torch.dtype]:
    """Compare keys, shapes and dtypes of a file with a network; returns the stored dtypes by key.

    Reads the header only. Raises CheckpointError naming the file and the first key at fault.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    stored: dict[str, torch.dtype] = {}
    with _opened(path.weights) as handle:
        keys = set(handle.keys())
        for kind, wrong in (("missing", expected.keys() - keys), ("unknown", keys - expected.keys())):
            if wrong:
                some = ", ".join(sorted(wrong)[:3])
                raise CheckpointError(f"{path.weights}: {len(wrong)} {kind} key(s), first: {some}")
        for key, shape in expected.items():
            part = handle.get_slice(key)
            if tuple(part.get_shape()) != shape:
                raise CheckpointError(
                    f"{path.weights}: {key}: shape {list(part.get_shape())}, the network needs {list(shape)}"
                )
            if part.get_dtype() not in STORED:
                raise CheckpointError(f"{path.weights}: {key}: dtype {part.get_dtype()} is not a float type")
            stored[key] = STORED[part.get_dtype()]
    return stored


def fill(module: nn.Module, path: ModelPath, read: Reader) -> nn.Module:
    """Move the file's tensors into a meta network; the file's cached pages are dropped afterwards."""
    verify(module, path)
    expect_file_pages(path.weights)
    try:
        state = read(path.weights, list(module.state_dict()))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.weights}: not readable: {error}") from error
    module.load_state_dict(state, strict=True, assign=True)
    drop_file_pages(path.weights)
    return module.eval().requires_grad_(False)


def expect_file_pages(path: Path) -> None:
    """Ask the kernel to read the file ahead."""
    _advise(path, "POSIX_FADV_WILLNEED")


def drop_file_pages(path: Path) -> None:
    """Tell the kernel the file's cached pages are not needed: they count against a pod's memory.

    Pages that are still mapped stay.
    """
    _advise(path, "POSIX_FADV_DONTNEED")


def _advise(path: Path, advice: str) -> None:
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, getattr(os, advice))
        finally:
            os.close(descriptor)


def fingerprint(directory: Path, repositories: Repositories) -> str:
    """Short name of a checkpoint's content: its descriptions, and its weights wherever they lie."""
    found = hashlib.sha256((directory / "pipeline.json").read_bytes())
    entries = read_pipeline(directory).args.models
    for role in ROLES:
        files = locate(directory, role, entries[role], repositories)
        found.update(files.config.read_bytes())
        _update_with_weights(found, files.weights)
        drop_file_pages(files.weights)
    return f"{directory.name}:{found.hexdigest()[:12]}"


def _update_with_weights(found: Hash, path: Path) -> None:
    """Small files whole, large ones by blocks evenly spread over them: other weights differ everywhere."""
    size = path.stat().st_size
    found.update(str(size).encode())
    step = BLOCK_BYTES if size <= WHOLE_BYTES else size // BLOCKS
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            found.update(file.read(BLOCK_BYTES))
