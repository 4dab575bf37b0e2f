"""`sn17 doctor` on a machine with something wrong: it says so, and what it advises helps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sn17.doctor.local.files import Hotkey, judge_hotkey
from sn17.doctor.local.machine import Clock, Disk, Python, judge_clock, judge_disk, judge_python
from sn17.doctor.local.torch import Torch, judge_torch
from sn17.doctor.model import Check, Finding, Outcome, ProbeError, exit_code, ok
from sn17.doctor.runner import run
from sn17_protocol.wallet import write_hotkey
from sn17_trellis.manifest import write_manifest

BIN = Path(sys.executable).parent
WITHOUT_TORCH = ("python", "disk", "ports", "proxy", "clock", "hotkey", "model files")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def doctor(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code of the command, and its findings by name.

    Importing torch takes seconds: it is left out unless it is asked for.
    """
    if "--only" not in args:
        args = (*args, *(part for name in WITHOUT_TORCH for part in ("--only", name)))
    clean = {
        k: v for k, v in os.environ.items() if k.lower() not in ("http_proxy", "https_proxy", "all_proxy")
    }
    clean |= {"PATH": f"{BIN}:{os.environ['PATH']}"}
    answer = subprocess.run(
        [BIN / "sn17", "doctor", "--json", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, **(env or {})},
        timeout=100,
        check=False,
    )
    assert "Traceback" not in answer.stderr
    found = json.loads(answer.stdout)
    assert found["exit_code"] == answer.returncode
    return answer.returncode, {check["name"]: check for check in found["checks"]}


def carry_out(finding: Mapping[str, str], cwd: Path) -> None:
    """Run the command that a finding advises, as somebody who pastes it."""
    assert finding["command"], finding
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", finding["command"]], cwd=cwd, env=env, check=True, timeout=60)


@pytest.fixture
def taken_port() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    script = (
        "import socket, sys, time\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_taken_port_is_named_with_its_process_and_is_free_after_the_remedy(
    taken_port: tuple[int, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    port, process = taken_port
    code, found = doctor("--port", str(port), cwd=tmp_path)
    assert code == 1
    assert found["ports"]["outcome"] == "failed"
    assert f"process {process.pid}" in found["ports"]["said"]
    carry_out(found["ports"], tmp_path)
    assert process.wait(10) == -signal.SIGTERM
    _, found = doctor("--port", str(port), cwd=tmp_path)
    assert str(port) not in found["ports"]["said"] or found["ports"]["outcome"] == "ok"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_has_room_after_the_remedy_which_spares_the_run_that_is_up(
    small_disk: Path,
) -> None:
    import fcntl

    old, up = small_disk / "old run", small_disk / "up"
    for run_folder, size in ((old, 150), (up, 200)):
        run_folder.mkdir()
        (run_folder / "sn17-up.lock").touch()
        (run_folder / "assets").write_bytes(bytes(size * 1024 * 1024 // 4))
    (old / "more").write_bytes(bytes(120 * 1024 * 1024))
    with (up / "sn17-up.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, found = doctor("--state-dir", str(small_disk), cwd=small_disk)
        assert (code, found["disk"]["outcome"]) == (1, "failed")
        carry_out(found["disk"], small_disk)
        assert not old.exists()
        assert up.exists()
        _, found = doctor("--state-dir", str(small_disk), cwd=small_disk)
    assert found["disk"]["outcome"] == "ok"


def test_a_disk_without_anything_to_delete_gets_no_command() -> None:
    found = judge_disk(Disk(Path("/data"), 100, 10**6, True))
    assert (found.outcome, found.command) == (Outcome.FAILED, "")
    assert "--state-dir" in found.remedy
    assert judge_disk(Disk(Path("/data"), 10**12, 3, True)).outcome is Outcome.FAILED
    assert judge_disk(Disk(Path("/data"), 10**12, None, True)).outcome is Outcome.OK
    assert judge_disk(Disk(Path("/data"), 10**12, 10**6, False)).outcome is Outcome.FAILED


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://user:s3cret@127.0.0.1:9", "does not answer"),
        ("socks5://127.0.0.1:9", "socks5 is not supported"),
        ("http://:99999999", "is not an address"),
    ],
)
def test_a_proxy_that_no_client_can_use_is_said_without_its_password(
    variable: str, value: str, said: str, tmp_path: Path
) -> None:
    code, found = doctor(cwd=tmp_path, env={variable: value})
    assert code == 1
    assert said in found["proxy"]["said"]
    assert variable in found["proxy"]["said"]
    assert "s3cret" not in json.dumps(found)
    assert found["proxy"]["command"] == f"unset {variable}"


def test_unsetting_a_dead_proxy_as_advised_helps(tmp_path: Path) -> None:
    env = {"https_proxy": "http://127.0.0.1:9"}
    _, found = doctor(cwd=tmp_path, env=env)
    command = f"{found['proxy']['command']}; exec {BIN}/sn17 doctor --only proxy --json"
    answer = subprocess.run(
        ["bash", "-c", command], capture_output=True, cwd=tmp_path, env={**os.environ, **env}, check=False
    )
    checks = {check["name"]: check for check in json.loads(answer.stdout)["checks"]}
    assert checks["proxy"]["outcome"] == "ok"


def test_a_proxy_that_answers_is_fine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        _, found = doctor(cwd=tmp_path, env={"HTTPS_PROXY": address})
    assert found["proxy"]["outcome"] == "ok"


@pytest.fixture
def hotkey(tmp_path: Path) -> Path:
    from bittensor_wallet import Keypair

    path = tmp_path / "keys" / "my hotkey"
    write_hotkey(path, Keypair.create_from_mnemonic(Keypair.generate_mnemonic()))
    return path


def test_a_hotkey_that_others_may_read_is_kept_to_its_owner_by_the_remedy(
    hotkey: Path, tmp_path: Path
) -> None:
    hotkey.chmod(0o644)
    code, found = doctor("--hotkey", str(hotkey), cwd=tmp_path)
    assert (code, found["hotkey"]["outcome"]) == (1, "failed")
    carry_out(found["hotkey"], tmp_path)
    _, found = doctor(cwd=tmp_path, env={"SN17_HOTKEY_FILE": str(hotkey)})
    assert found["hotkey"]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot read"), (b"", "not a JSON key file"), (b'{"ss58Address": "5x"}', "no secret")],
)
def test_a_file_that_is_no_hotkey_is_said(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    code, found = doctor("--hotkey", str(path), cwd=tmp_path)
    assert code == 1
    assert said in found["hotkey"]["said"]
    assert str(path) in found["hotkey"]["said"]


def test_a_hotkey_nobody_named_is_not_called_ok() -> None:
    assert judge_hotkey(None).outcome is Outcome.NOT_USED
    assert judge_hotkey(Hotkey(Path("x"), problem="gone")).outcome is Outcome.FAILED


def test_a_flipped_byte_of_a_model_is_found_and_fetching_as_advised_brings_it_back(tmp_path: Path) -> None:
    from model_hub import REPOSITORY, Hub

    hub = Hub()
    into = tmp_path / "models of mine"
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path / "hf")}
    try:
        fetch = [BIN / "sn17-trellis", "fetch", f"{REPOSITORY}@{COMMIT}", "--into", str(into)]
        subprocess.run(fetch, env={**os.environ, **env}, check=True, capture_output=True)
        code, found = doctor("--model", str(into), cwd=tmp_path)
        assert found["model files"]["outcome"] == "ok"
        weights = sorted((into / REPOSITORY).rglob("*.safetensors"))[0]
        content = bytearray(weights.read_bytes())
        content[100] ^= 1
        weights.write_bytes(content)
        code, found = doctor("--model", str(into), cwd=tmp_path)
        assert (code, found["model files"]["outcome"]) == (1, "failed")
        assert str(weights) in found["model files"]["said"]
        command = found["model files"]["command"]
        again = {**os.environ, **env, "PATH": f"{BIN}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-ec", command], env=again, check=True, capture_output=True)
        _, found = doctor("--model", str(into), cwd=tmp_path)
        assert found["model files"]["outcome"] == "ok"
    finally:
        hub.close()


def test_models_without_a_manifest_or_without_a_folder_are_not_called_ok(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    _, found = doctor("--model", str(tmp_path / "bare"), cwd=tmp_path)
    assert found["model files"]["outcome"] == "warning"
    code, found = doctor("--model", str(tmp_path / "absent"), cwd=tmp_path)
    assert (code, found["model files"]["outcome"]) == (1, "unknown")


def test_a_file_missing_from_a_model_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    write_manifest(folder, "owner/name", COMMIT, COMMIT, ["a.json"], partial=False)
    (folder / "a.json").unlink()
    _, found = doctor("--model", str(folder), cwd=tmp_path)
    assert found["model files"]["outcome"] == "failed"
    assert "a.json" in found["model files"]["said"]


def test_a_torch_that_cannot_be_imported_fails_with_the_reason(tmp_path: Path) -> None:
    for name in ("torch", "transformers", "safetensors"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise OSError('libcudart.so.13: not found')\n")
    code, found = doctor("--only", "torch and GPU", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert (code, found["torch and GPU"]["outcome"]) == (1, "failed")
    assert "libcudart.so.13" in found["torch and GPU"]["said"]
    assert "--reinstall-package torch" in found["torch and GPU"]["command"]


@pytest.mark.parametrize(
    ("found", "outcome", "word"),
    [
        (Torch(("torch",)), Outcome.NOT_USED, "procedural"),
        (Torch(("torch",), driver="580.1"), Outcome.FAILED, "580.1"),
        (Torch((), "2.15", None), Outcome.OK, "without a GPU"),
        (Torch((), "2.15", "13.2"), Outcome.WARNING, "no NVIDIA driver"),
        (Torch((), "2.15", None, driver="580.1"), Outcome.FAILED, "without CUDA"),
        (Torch((), "2.15", "13.2", driver="470.1", problem="too old"), Outcome.FAILED, "too old"),
        (Torch((), "2.15", "13.2", ("H200",), "580.1"), Outcome.OK, "H200"),
    ],
    ids=lambda value: value.version or "none" if isinstance(value, Torch) else str(value),
)
def test_what_torch_and_driver_make_of_each_other(found: Torch, outcome: Outcome, word: str) -> None:
    judged = judge_torch(found)
    assert judged.outcome is outcome
    assert word in judged.said


@pytest.mark.parametrize(
    ("clock", "outcome"),
    [
        (Clock(True), Outcome.OK),
        (Clock(True, 1.0), Outcome.OK),
        (Clock(False, 1.0), Outcome.WARNING),
        (Clock(None), Outcome.UNKNOWN),
        (Clock(True, -3.0), Outcome.FAILED),
        (Clock(None, 3.0), Outcome.FAILED),
    ],
    ids=str,
)
def test_a_clock_is_ok_only_where_somebody_says_so(clock: Clock, outcome: Outcome) -> None:
    assert judge_clock(clock).outcome is outcome


def test_an_old_python_fails() -> None:
    assert judge_python(Python((3, 10, 9), "/usr/bin/python3")).outcome is Outcome.FAILED
    assert judge_python(Python((3, 14, 0), "/usr/bin/python3")).outcome is Outcome.OK


def _raise(error: Exception) -> Callable[[], Finding]:
    def raising() -> Finding:
        raise error

    return raising


def test_a_check_that_hangs_or_breaks_is_unknown_and_the_others_are_told() -> None:
    never = threading.Event()

    def hang() -> Finding:
        never.wait()
        return ok("too late")

    checks = [
        Check("hangs", hang, 0.05),
        Check("breaks", _raise(RuntimeError("odd"))),
        Check("refused", _raise(ProbeError("no right to read", "ask for it"))),
        Check("fine", lambda: ok("fine")),
    ]
    found = {result.name: result.finding for result in run(checks)}
    never.set()
    assert [found[name].outcome for name in ("hangs", "breaks", "refused")] == [Outcome.UNKNOWN] * 3
    assert found["refused"].remedy == "ask for it"
    assert found["fine"].outcome is Outcome.OK
    assert exit_code(run(checks[3:])) == 0
    assert exit_code(run(checks[1:])) == 1


def test_a_reason_that_several_checks_have_is_said_once() -> None:
    silent = ProbeError("the API server does not answer", "start it")
    checks = [
        Check("cluster", _raise(silent)),
        Check("definition", _raise(ProbeError("the API server does not answer", "start it"))),
        Check("refused", _raise(ProbeError("no right to read", "ask for it"))),
    ]
    told = [result.finding for result in run(checks)]
    assert [finding.outcome for finding in told] == [Outcome.UNKNOWN] * 3
    assert [finding.remedy for finding in told] == ["start it", "", "ask for it"]
    assert told[1].said == "not found out, for the reason that cluster has"


def test_lines_in_a_pipe_are_whole_and_carry_the_remedy(hotkey: Path, tmp_path: Path) -> None:
    hotkey.chmod(0o640)
    env = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    answer = subprocess.run(
        [BIN / "sn17", "doctor", "--only", "hotkey", "--hotkey", str(hotkey)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
        check=False,
    )
    assert answer.returncode == 1
    line = next(line for line in answer.stdout.splitlines() if line.startswith("hotkey"))
    assert f"chmod 600 '{hotkey}'" in line
    assert shutil.which("sn17", path=str(BIN))


def test_every_check_is_told_and_an_unknown_name_is_refused_with_all_names(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"} | {"HOME": str(tmp_path)}
    argv = [BIN / "sn17", "doctor"]
    answer = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    told = answer.stdout.splitlines()
    for name in (*WITHOUT_TORCH, "torch and GPU", "cluster"):
        assert any(line.startswith(name) for line in told), name
    answer = subprocess.run(
        [*argv, "--only", "weather"], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert answer.returncode == 2
    assert "torch and GPU" in " ".join(answer.stderr.split())
