"""One factory for HTTP clients, one for consoles, one way to replace a file, one place for the gates."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("cli/src/", "operator/src/", "services/", "libs/")


@dataclass(frozen=True)
class Rule:
    """``calls`` (dotted, or ``.method/arguments``), ``imports`` and ``numbers`` that ``only`` may have."""

    reason: str
    only: tuple[str, ...]
    calls: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    numbers: frozenset[float] = frozenset()
    under: tuple[str, ...] = ("",)
    tests: bool = True


RULES = (
    Rule(
        "httpx has no maintainer: take a client of sn17_http, and httpx2 for its types",
        only=("tests/conformance/",),
        imports=frozenset({"httpx"}),
    ),
    Rule(
        "clients come from sn17_http, which keeps our own services off the environment's proxies",
        only=("libs/http/src/",),
        calls=frozenset(
            f"httpx2.{name}"
            for name in ("Client", "get", "post", "put", "delete", "patch", "head", "request", "stream")
        ),
    ),
    Rule(
        "clients come from sn17_http; the fixer's tests call its application in memory",
        only=("libs/http/src/", "services/fixer/tests/fixer_client.py"),
        calls=frozenset({"httpx2.AsyncClient"}),
    ),
    Rule(
        "requests go through a client of sn17_http or a session of the miner",
        only=("libs/http/",),
        calls=frozenset({"urllib.request.urlopen", "http.client.HTTPConnection", "requests.get"}),
        imports=frozenset({"requests"}),
        under=PRODUCT,
        tests=False,
    ),
    Rule(
        "sessions of aiohttp come from sn17_miner.clients.web",
        only=("services/miner/src/sn17_miner/clients/web.py",),
        calls=frozenset({"aiohttp.ClientSession"}),
        under=(*PRODUCT, "dev/devnet/src/"),
        tests=False,
    ),
    Rule(
        "consoles come from sn17.console",
        only=("cli/src/sn17/console.py",),
        calls=frozenset({"rich.console.Console", "rich.get_console", "rich.print"}),
        tests=False,
    ),
    Rule(
        "files are replaced by sn17_files",
        only=(
            "libs/files/src/",
            # Move files that are whole already; makes a secret that the first of several keeps.
            "services/trellis/src/sn17_trellis/spool.py",
            "services/miner/src/sn17_miner/kept.py",
            "services/gateway/src/sn17_gateway/keys.py",
        ),
        calls=frozenset({"os.replace", "os.rename", "os.renames", "shutil.move", "os.fsync", ".replace/1"}),
        under=(*PRODUCT, "dev/devnet/src/", "dev/train/src/", "dev/cluster/src/"),
        tests=False,
    ),
    Rule(
        "the constants of colour and the subnet's gates stand in sn17_splats.convention",
        only=("libs/splats/src/sn17_splats/convention.py",),
        numbers=frozenset({0.28209479177387814, 0.28209479, 0.282095, 7_000}),
        tests=False,
    ),
    Rule(
        "plyfile is under the GPL: it reads our files in tests and benchmarks only",
        only=("dev/bench/",),
        imports=frozenset({"plyfile"}),
        tests=False,
    ),
)


def offences(source: str, rule: Rule) -> Iterator[str]:
    """Lines of ``source`` that a rule forbids."""
    tree = ast.parse(source)
    kinds = {(type(number), number) for number in rule.numbers}
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    names[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
                    if alias.name.partition(".")[0] in rule.imports:
                        yield f"{node.lineno}: import {alias.name}"
            case ast.ImportFrom(module=str(module), names=aliases):
                names |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in aliases}
                if module.partition(".")[0] in rule.imports:
                    yield f"{node.lineno}: from {module} import"
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=function):
                called = _dotted(function, names)
                if called in rule.calls:
                    yield f"{node.lineno}: {called}()"
                method = f".{function.attr}/{len(node.args)}" if isinstance(function, ast.Attribute) else ""
                if method in rule.calls and not node.keywords:
                    yield f"{node.lineno}: {method}"
            case ast.Constant(value=int() | float() as value) if (type(value), value) in kinds:
                yield f"{node.lineno}: {value}"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value, names)}.{name}"
    return ""


def _files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # an archive of the sources
        return [str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if ".venv" not in file.parts]
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


FILES = _files()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason.partition(":")[0])
def test_there_is_no_second(rule: Rule) -> None:
    found = [
        f"{name}:{offence}"
        for name in FILES
        if name.startswith(rule.under)
        and not name.startswith(rule.only)
        and (rule.tests or not ("/tests/" in name or name.startswith("tests/")))
        for offence in offences((ROOT / name).read_text(), rule)
    ]
    assert not found, f"{rule.reason}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx",
        "from httpx import Client",
        "import httpx2\nhttpx2.Client()",
        "import httpx2 as web\nweb.get('x')",
        "from httpx2 import AsyncClient as A\nA()",
        "from urllib.request import urlopen\nurlopen('x')",
        "import urllib.request\nurllib.request.urlopen('x')",
        "import aiohttp\nasync def f():\n    async with aiohttp.ClientSession() as s: pass",
        "from rich.console import Console\nConsole(width=3)",
        "import os\nos.replace('a', 'b')",
        "part.replace(target)",
        "rgb = 0.5 + 0.28209479177387814 * dc",
        "enough = count >= 7_000",
        "from plyfile import PlyData",
    ],
)
def test_a_second_is_noticed(source: str) -> None:
    assert any(list(offences(source, rule)) for rule in RULES)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx2\ndef f(client: httpx2.Client) -> httpx2.Response: ...",
        "'a'.replace('b', 'c')\nsplats.replace(f_dc=x)\nnow.replace(tzinfo=None)",
        "from dataclasses import replace\nreplace(x, y=1)",
        "from rich.console import Console\ndef f(console: Console) -> None: ...",
        "port = 7001",
    ],
)
def test_types_and_namesakes_are_free(source: str) -> None:
    assert not any(list(offences(source, rule)) for rule in RULES)
