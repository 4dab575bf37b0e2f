"""Inputs that once made the product fail, where somebody has put them: ../shared/data/faults.

Tests beside each part have small inputs of their own for the same kinds; this module tries the given ones as
they are, and notices one that it does not know.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sn17.splat.command import app
from sn17_splats import read_splat
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
GIVEN = ROOT.parent / "shared" / "data" / "faults"
BIN = Path(sys.executable).parent
BUNDLED = ROOT / "services/trellis/src/sn17_trellis/data/mini-text"
KNOWN = {
    "README.md", "checkpoint_lfs.sh", "inplace.sh", "nfs.sh", "nolock.c", "nommap.c", "plys.py", "proxy.sh",
    "roundtrip.py", "state_dir_hash.sh",
}  # fmt: skip
RUNNER = CliRunner()

pytestmark = pytest.mark.skipif(not GIVEN.is_dir(), reason=f"{GIVEN} is not there")


def run(argv: list[str], cwd: Path, seconds: float = 100, **env: str) -> subprocess.CompletedProcess[str]:
    """A program with our commands on its path; never a traceback."""
    answer = subprocess.run(
        argv,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TMPDIR": str(cwd), **env},
    )
    assert "Traceback" not in answer.stdout + answer.stderr, answer.stdout + answer.stderr
    return answer


def test_every_given_input_is_tried() -> None:
    assert {path.name for path in GIVEN.iterdir() if not path.name.startswith("__")} <= KNOWN


@pytest.fixture(scope="module")
def splats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splats")
    answer = run([sys.executable, str(GIVEN / "plys.py"), str(folder)], folder)
    assert answer.returncode == 0, answer.stderr
    return folder


NOT_READABLE = {
    "zero_bytes.ply": "empty",
    "html_instead.ply": "web page",
    "lfs_pointer.ply": "LFS",
    "zip.ply": "ZIP",
    "json.ply": "JSON",
    "mesh.ply": "lacks",
    "crlf_header_ftp_ascii_body.ply": "",
    "cut_last_row.ply": "",
    "count_too_large.ply": "",
    "ascii_comma_decimal.ply": "",
    "splat_cut.splat": "",
    "splat_empty.splat": "",
}
"""What must be refused, and a word of the reason where the kind is known."""


def test_every_file_is_read_or_refused_in_one_sentence(splats: Path) -> None:
    found = {}
    for path in sorted(splats.iterdir()):
        answer = RUNNER.invoke(app, ["inspect", str(path)])
        assert answer.exception is None or isinstance(answer.exception, SystemExit), (
            path.name,
            answer.output,
        )
        assert answer.exit_code in (0, 1, 2, 3, 4), (path.name, answer.output)
        found[path.name] = answer
    for name, word in NOT_READABLE.items():
        answer = found[name]
        assert answer.exit_code in (1, 2, 4), (name, answer.output)
        assert word.lower() in answer.output.lower(), (name, answer.output)
    for name in ("plain.ply", "double.ply", "big_endian.ply", "gz.ply", "subnet.spz", "ascii.ply"):
        assert found[name].exit_code == 0, (name, found[name].output)


def test_what_a_conversion_writes_comes_back_or_is_refused(splats: Path, tmp_path: Path) -> None:
    for name in ("plain.ply", "sh3.ply", "kilometre_scene.ply", "utm_coordinates.ply"):
        before = read_splat((splats / name).read_bytes())
        extent = float((before.positions.max(axis=0) - before.positions.min(axis=0)).max())
        for kind in ("niantic", "splat", "subnet"):
            there, back = tmp_path / f"{name}.{kind}", tmp_path / f"{name}.{kind}.ply"
            answer = RUNNER.invoke(app, ["convert", str(splats / name), str(there), "--to", kind])
            if answer.exit_code:
                assert answer.output.strip(), (name, kind)
                continue
            answer = RUNNER.invoke(app, ["convert", str(there), str(back), "--from", kind, "--to", "ply"])
            assert answer.exit_code == 0, (name, kind, answer.output)
            after = read_splat(back.read_bytes())
            assert len(after) == len(before), (name, kind)
            # .splat is sorted by importance, so corners are compared.
            for corner in (lambda a: a.min(axis=0), lambda a: a.max(axis=0)):
                off = abs(corner(after.positions) - corner(before.positions)).max()
                assert off <= extent * 1e-3, (name, kind, off)


def test_a_repair_in_place_on_a_full_disk_leaves_the_original(splats: Path, tmp_path: Path) -> None:
    script = (GIVEN / "inplace.sh").read_text().replace("/tmp/", f"{tmp_path}/")
    before = (splats / "sh3.ply").read_bytes()
    answer = run(["bash", "-c", script, "inplace.sh", str(BIN / "sn17"), str(splats / "sh3.ply")], tmp_path)
    assert (tmp_path / "inplace.ply").read_bytes() == before, answer.stdout + answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["inplace.ply"]


def test_a_checkpoint_cloned_without_lfs_is_called_that(tmp_path: Path) -> None:
    argv = ["bash", str(GIVEN / "checkpoint_lfs.sh"), str(BIN / "sn17-trellis"), str(BUNDLED)]
    answer = run(argv, tmp_path)
    assert "exit 1" in answer.stdout
    assert "LFS" in answer.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the faulty file systems are built with gcc")
@pytest.mark.parametrize(
    ("lacks", "said"), [("nolock", "offers no locks"), ("nommap", "offers no shared memory")]
)
def test_a_state_folder_without_locks_or_shared_memory_is_said(lacks: str, said: str, tmp_path: Path) -> None:
    """What NFS and SMB lack, taken away by a library that is loaded before all others."""
    from bittensor_wallet import Keypair
    from sn17_protocol.wallet import write_hotkey

    key = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
    write_hotkey(tmp_path / "hotkey", key)
    (tmp_path / "chain.json").write_text("{}")
    library = tmp_path / f"{lacks}.so"
    built = run(["gcc", "-shared", "-fPIC", "-o", str(library), str(GIVEN / f"{lacks}.c"), "-ldl"], tmp_path)
    assert built.returncode == 0, built.stderr
    settings = {
        "LD_PRELOAD": str(library),
        "SN17_HOTKEY_FILE": str(tmp_path / "hotkey"),
        "SN17_CHAIN__SOURCE": "file",
        "SN17_CHAIN__PATH": str(tmp_path / "chain.json"),
        "SN17_WORKERS": "http://127.0.0.1:1",
        "SN17_FIXER_URL": "http://127.0.0.1:1",
        "SN17_STATE_DIR": str(tmp_path / "state"),
        "SN17_OPS_PORT": "0",
    }
    answer = run([str(BIN / "sn17-miner")], tmp_path, **settings)
    assert answer.returncode != 0, answer.stdout + answer.stderr
    assert said in answer.stdout + answer.stderr


@pytest.fixture
def short_script(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    def ran(name: str) -> subprocess.CompletedProcess[str]:
        return run(["bash", str(GIVEN / name), str(BIN / "sn17")], tmp_path, 500)

    return ran


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_local_run_works_behind_a_dead_proxy(
    short_script: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    answer = short_script("proxy.sh")
    assert "exit 0" in answer.stdout, answer.stdout
    assert "All 1 tasks are accounted for." in answer.stdout.rpartition("exit 0")[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_state_folder_with_a_hash_keeps_its_journal(
    short_script: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    answer = short_script("state_dir_hash.sh")
    assert "All 1 tasks are accounted for." in answer.stdout
    assert re.search(r"run#1/miner/journal\.sqlite", answer.stdout)
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert {path.name for path in folder.iterdir()} == {"run#1", "run#2"}
