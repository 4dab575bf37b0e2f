"""Every path and address that a person can give, wrong in every way: one sentence and an exit code."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sn17.commands import app
from sn17.entry import ended
from sn17_miner.journal.journal import Journal
from sn17_splats import write_ply
from table_samples import cloud

PATHS = {
    "tasks state": ["tasks", "--state-dir", "{}"],
    "tasks token": ["tasks", "--url", "http://127.0.0.1:9", "--token-file", "{}"],
    "tasks kubeconfig": ["tasks", "--release", "x", "--kubeconfig", "{}"],
    "tasks get": ["tasks", "get", "1", "--state-dir", "state", "-o", "{}"],
    "status state": ["status", "--state-dir", "{}"],
    "status kubeconfig": ["status", "--release", "x", "--kubeconfig", "{}"],
    "cordon kubeconfig": ["cordon", "w1", "--kubeconfig", "{}"],
    "replay file": ["replay", "--file", "{}"],
    "replay spec": ["replay", "--file", "a.ply", "--spec", "{}"],
    "replay token": ["replay", "--prometheus", "http://127.0.0.1:9", "--bearer-token-file", "{}"],
    "watch token": ["watch", "--miner", "http://127.0.0.1:9", "--token-file", "{}"],
    "watch targets": ["watch", "--miner", "http://127.0.0.1:9", "--token-file", "token", "--targets", "{}"],
    "accept report": ["accept", "--worker", "http://127.0.0.1:9", "--fixer", "http://x", "--report", "{}"],
    "gateway token": ["gateway", "key", "list", "--url", "http://127.0.0.1:9", "--token-file", "{}"],
    "wallet file": ["wallet", "secret", "--file", "{}"],
    "wallet path": ["wallet", "secret", "--path", "{}"],
    "inspect": ["splat", "inspect", "{}"],
    "preview": ["splat", "preview", "{}", "out.png"],
    "calibrate": ["splat", "calibrate", "{}"],
    "compare": ["splat", "compare", "{}", "{}"],
    "convert": ["splat", "convert", "a.ply", "{}", "--to", "subnet"],
    "generate image": ["generate", "--image", "{}"],
    "generate prompts": ["generate", "--prompts", "{}"],
    "generate output": ["generate", "a cube", "-o", "{}"],
    "generate key": ["generate", "a cube", "--url", "http://127.0.0.1:9", "--key-file", "{}"],
    "generate state": ["generate", "a cube", "--state-dir", "{}"],
}
ADDRESSES = {
    "tasks": ["tasks", "--url", "{}"],
    "explain": ["explain", "w1", "--url", "{}"],
    "gateway": ["gateway", "key", "list", "--url", "{}", "--token-file", "token"],
    "watch": ["watch", "--miner", "{}", "--token-file", "token"],
    "accept": ["accept", "--generations", "1", "--worker", "{}", "--fixer", "{}"],
    "replay": ["replay", "--prometheus", "{}"],
    "generate": ["generate", "a cube", "--url", "{}", "--key", "k", "--timeout", "1"],
}
WRONG_PATHS = [
    "missing", "folder", "empty", "binary", "text", "below/missing", "text/below", "x" * 300, "",
]  # fmt: skip
WRONG_ADDRESSES = [
    "", "nonsense", "http://", "http://[::1", "http://127.0.0.1:99999", "ftp://127.0.0.1", "http://127.0.0.1:9",
    "http://exa mple", "http://\u2603.invalid:1", "http://127.0.0.1:9/path?q", "//127.0.0.1:9", "http://:80",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "state").mkdir()
    Journal(tmp_path / "state" / "journal.sqlite").close()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "text").write_text("two words\n")
    (tmp_path / "token").write_text("word\n")
    (tmp_path / "a.ply").write_bytes(write_ply(cloud(1)))
    return tmp_path


def tried(arguments: list[str], value: str) -> None:
    words = [value if word == "{}" else word for word in arguments]
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        code = ended(lambda: app(words))
    said = error.getvalue().strip()
    assert code in (0, 1, 2, 3, 4), (words, code, said)
    assert said or code in (0, 3, 4), words
    assert "Errno" not in said
    assert not re.search(r"/\.[^/ ]*\.[0-9a-f]{12}", said), said
    if code and "Usage:" not in said and arguments[0] != "generate":
        assert said.count("\n") == 0, (words, said)


@pytest.mark.parametrize("value", WRONG_PATHS)
@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_cannot_be_used(place: Path, name: str, value: str) -> None:
    tried(PATHS[name], value)


@pytest.mark.parametrize("value", WRONG_ADDRESSES)
@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_cannot_be_used(place: Path, name: str, value: str) -> None:
    tried(ADDRESSES[name], value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(ADDRESSES)),
    address=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
def test_any_text_as_an_address(place: Path, name: str, address: str) -> None:
    tried(ADDRESSES[name], f"http://{address.lstrip('-')}" if len(address) % 2 else f"x{address}")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(PATHS)), content=st.binary(max_size=200))
def test_any_bytes_in_a_file(place: Path, name: str, content: bytes) -> None:
    (place / "any").write_bytes(content)
    tried(PATHS[name], "any")
