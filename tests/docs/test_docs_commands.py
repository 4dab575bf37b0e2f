"""Commands of the README and the docs: what needs no cluster is run, all others exist as they are written.

A block of commands is fenced as `sh`. The comment before it says why it is not simply run:
`<!-- needs: cluster -->` (or gpu, checkpoint, minutes, pm2, home), `<!-- tested by: FILE -->`, or
beside which service it is run: `<!-- with: worker -->`, `<!-- with: gateway -->`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from sn17.commands import COMMANDS
from sn17_http import own_client

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "operator/README.md",
    *sorted(ROOT.glob("*/*/README.md")),
]
FENCE = re.compile(
    r"(?:^[ ]*<!-- ([a-z ]+): (\S+) -->\n)?^([ ]*)```(\w*)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL
)
COMMAND = re.compile(r"^(?:    |\t)(?:make|\.venv/|sn17|kubectl|helm|curl|python3?|kind) ", re.MULTILINE)
NEEDS = ("cluster", "gpu", "checkpoint", "minutes", "pm2", "home")
START_SECONDS = 200.0
PLACEHOLDER = re.compile(r"^(?:[A-Z_]+|\.\.\.|…|[0-9]+)$")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    how: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in FENCE.finditer(text):
            how, what, pad, language, body = found.groups()
            if language == "sh":
                lines = "".join(line.removeprefix(pad) for line in body.splitlines(keepends=True))
                line = text.count("\n", 0, found.start(3)) + 1
                yield Block(str(page.relative_to(ROOT)), line, how or "", what or "", lines)


BLOCKS = list(blocks())
RUN = [block for block in BLOCKS if block.how in ("", "with")]


def test_blocks_of_commands_are_fenced_and_say_what_they_need() -> None:
    for page in PAGES:
        outside = FENCE.sub("", page.read_text())
        assert not COMMAND.search(outside), f"{page}: fence this block as sh: {COMMAND.search(outside)}"
    for block in BLOCKS:
        assert block.how in ("", "with", "needs", "tested by"), block
        if block.how == "needs":
            assert block.what in NEEDS, block
        if block.how == "tested by":
            assert (ROOT / block.what).exists(), block
    assert len(RUN) >= 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a clone looks like to a command, with room for what it writes."""
    for path in ROOT.iterdir():
        if path.name not in (".git", ".sn17", ".pytest_cache"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".venv").unlink(missing_ok=True)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    square = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    square.paste((200, 30, 30, 255), (16, 16, 48, 48))
    square.save(tmp_path / "cup.png")
    return tmp_path


@contextmanager
def service(module: str, folder: Path, *arguments: str, **settings: str) -> Iterator[int]:
    """A service as a process of its own; its data port."""
    ready = folder / "ready.json"
    environment = {
        **os.environ,
        "SN17_PORT": "0",
        "SN17_OPS_PORT": "0",
        "SN17_READY_FILE": str(ready),
        "SN17_LOG_LEVEL": "WARNING",
        "SN17_DIE_WITH_PARENT": "true",
        **settings,
    }
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=folder, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, f"{module} ended"
            assert time.monotonic() < deadline, f"{module} does not listen"
            time.sleep(0.05)
        yield json.loads(ready.read_text())["port"]
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def wait_ready(port: int) -> None:
    """Until the worker takes work: it listens before it is warm."""
    deadline = time.monotonic() + START_SECONDS
    with own_client() as client:
        while client.get(f"http://127.0.0.1:{port}/v1/worker").json()["state"] != "ready":
            assert time.monotonic() < deadline, "the worker is not ready"
            time.sleep(0.05)


def run(block: Block, text: str, folder: Path, **environment: str) -> None:
    answer = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    assert answer.returncode == 0, f"{block}\n{answer.stdout}\n{answer.stderr}"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("block", RUN, ids=str)
def test_what_needs_no_cluster_runs(block: Block, folder: Path) -> None:
    if "curl" in block.text and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if block.what == "worker":
        settings = {"SN17_BACKEND": "procedural", "SN17_SPOOL_DIR": str(folder / "spool")}
        with service("sn17_trellis", folder, "serve", **settings) as port:
            wait_ready(port)
            run(block, block.text.replace(":10006", f":{port}"), folder)
    elif block.what == "gateway":
        key = {"SN17_GENERIC_KEY": str(uuid.uuid4())}
        with service("sn17_gateway", folder, SN17_DATA_DIR=str(folder / "data"), **key) as port:
            run(block, block.text.replace(":8404", f":{port}"), folder, **key)
    else:
        run(block, block.text, folder)


def mentions(program: str) -> Iterator[tuple[str, list[str]]]:
    """Where docs name a command line of ``program``, in blocks and in sentences, and its words."""
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        fenced = [
            line for found in FENCE.finditer(text) if found[4] == "sh" for line in found[5].splitlines()
        ]
        inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        for line in (*fenced, *inline):
            for part in re.split(r"\||&&|;|\s#\s", line):
                words = part.replace("[", " ").replace("]", " ").strip()
                for start in (program, f".venv/bin/{program}", f"kubectl {program}"):
                    if words == start or words.startswith(f"{start} "):
                        yield str(page.relative_to(ROOT)), _split(words.removeprefix(start))


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError:
        return words.split()


def refusal(words: list[str]) -> str | None:
    """Why ``sn17`` would not know these words; None where it would."""
    if not words or words[0].startswith("-") or PLACEHOLDER.match(words[0]):
        return None
    if words[0] not in COMMANDS:
        return f"no command {words[0]}"
    command: Any = COMMANDS[words[0]].load(words[0])
    rest = words[1:]
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    if hasattr(command, "commands") and rest and re.fullmatch(r"[a-z]+", rest[0]):
        return f"no command {' '.join(words[:2])}"
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {
        "-h",
        "--help",
    }
    if hasattr(command, "commands"):
        known |= {name for sub in command.commands.values() for each in sub.params for name in each.opts}
    asked = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    return f"{' '.join(words)}: no option {sorted(asked - known)}" if asked - known else None


def test_every_command_and_option_of_sn17_that_docs_name_exists() -> None:
    found = [(page, refusal(words)) for page, words in mentions("sn17")]
    assert len(found) >= 80
    assert [each for each in found if each[1] is not None] == []


def test_every_target_and_variable_of_make_that_docs_name_exists() -> None:
    text = "\n".join(file.read_text() for file in (ROOT / "Makefile", *(ROOT / "dev/mk").glob("*.mk")))
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", text, re.MULTILINE))
    named = [(page, word) for page, words in mentions("make") for word in words if not word.startswith("-")]
    assert len(named) >= 40
    for page, word in named:
        name, given, _ = word.partition("=")
        assert name in (variables if given else targets) or PLACEHOLDER.match(name), f"{page}: make {word}"


def test_every_file_and_value_that_docs_give_to_helm_exists() -> None:
    values = yaml.safe_load((ROOT / "charts/sn17/values.yaml").read_text())
    named = [(page, word) for page, words in mentions("helm") for word in words]
    for page, word in named:
        if word.startswith("charts/"):
            assert (ROOT / word).exists(), f"{page}: {word}"
        if found := re.fullmatch(r"([a-z][\w.]*)=.*", word):
            inner: Any = values
            for key in found[1].split("."):
                assert isinstance(inner, dict), f"{page}: {word}"
                assert key in inner or inner == {}, f"{page}: {word}"
                inner = inner.get(key)
    assert sum("=" in word for _, word in named) >= 10


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("tasks explain 7", None),
        ("tasks explian 7", "no command tasks explian"),
        ("repair x", "no command repair"),
        ("accept --generation 3", "accept --generation 3: no option ['--generation']"),
        ("gateway key create NAME --daily 5", None),
        ("COMMAND --help", None),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(words: str, why: str | None) -> None:
    assert refusal(words.split()) == why
