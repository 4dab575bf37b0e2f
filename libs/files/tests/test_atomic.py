"""Whole or not there, whatever happens: real disks, a full one included."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sn17_files import write_atomically


def test_content_is_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails half way."""
    path = tmp_path / "splat.ply"
    path.write_bytes(b"the original")
    code = f"""
import pathlib, resource, signal
from sn17_files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_atomically(pathlib.Path({str(path)!r}), bytes(1 << 20))
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "OSError"
    assert path.read_bytes() == b"the original"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = [bytes([byte]) * 300_000 for byte in b"abcd"]
    write_atomically(path, contents[0])
    writers = [
        threading.Thread(target=lambda own=own: [write_atomically(path, own) for _ in range(20)])
        for own in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize(("before", "asked", "after"), [(0o640, None, 0o640), (0o640, 0o600, 0o600)])
def test_permissions_are_kept_or_set(tmp_path: Path, before: int, asked: int | None, after: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(before)
    write_atomically(path, b"new", mode=asked)
    assert path.stat().st_mode & 0o777 == after


def test_a_new_file_obeys_the_umask_and_a_secret_is_never_readable(tmp_path: Path) -> None:
    plain, secret = tmp_path / "plain", tmp_path / "secret"
    write_atomically(plain, b"x")
    write_atomically(secret, b"x", mode=0o600)
    reference = tmp_path / "reference"
    reference.write_bytes(b"x")
    assert plain.stat().st_mode == reference.stat().st_mode
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there/real", tmp_path / "link"
    link.symlink_to(real)
    write_atomically(link, b"content")
    assert link.is_symlink()
    assert real.read_bytes() == b"content"


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"through")
    reader.join(20)
    assert got == [b"through"]
    write_atomically(Path("/dev/null"), b"nowhere")
    assert Path("/dev/null").is_char_device()
    code = "import pathlib, sn17_files; sn17_files.write_atomically(pathlib.Path('/dev/stdout'), b'out')"
    assert _python(code) == "out"


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def _python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
