"""Images made of static binaries alone, as archives that `ctr images import` and `docker load` take."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

NOBODY = 65532


def write_archive(
    path: Path,
    name: str,
    files: Mapping[str, Path],
    *,
    entrypoint: Sequence[str],
    folders: Sequence[str] = (),
) -> Path:
    """Write an image `name` that holds `files` (path in the image: source) and empty `folders` for anyone.

    It has one layer, no shell and no base, and runs as a numeric user that is not root. The same input gives
    the same bytes.
    """
    layer = _layer(files, folders)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": list(entrypoint), "User": f"{NOBODY}:{NOBODY}", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{layer_digest}.tar"]}]
    entries = {
        config_name: config,
        f"{layer_digest}.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for entry, content in entries.items():
            archive.addfile(_header(entry, len(content), 0o644), io.BytesIO(content))
    return path


def _layer(files: Mapping[str, Path], folders: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder in folders:
            header = _header(folder.strip("/"), 0, 0o1777)
            header.type = tarfile.DIRTYPE
            layer.addfile(header)
        for target, source in files.items():
            content = source.read_bytes()
            layer.addfile(_header(target.strip("/"), len(content), 0o755), io.BytesIO(content))
    return buffer.getvalue()


def _header(name: str, size: int, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = mode
    return header
