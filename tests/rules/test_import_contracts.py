"""Every import contract of the project fails where somebody breaks it: proven on copies of the sources."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINTER: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS: list[dict[str, Any]] = LINTER["contracts"]

Edit = tuple[str, str]
"""A module and an import statement for it. A module that does not exist is made."""


def breaches(contract: dict[str, Any]) -> Iterator[Edit]:
    """Imports that the contract forbids: one for each module, or pair of neighbours, that it speaks of."""
    match contract["type"]:
        case "forbidden":
            for source in contract["source_modules"]:
                for forbidden in contract["forbidden_modules"]:
                    if not forbidden.startswith(f"{source}."):
                        yield source, f"import {forbidden}"
                        break
        case "layers":
            layers = [layer.split(" | ") for layer in contract["layers"]]
            for higher, lower in itertools.pairwise(layers):
                yield lower[0], f"import {higher[0]}"
            for layer in layers:
                for one, other in itertools.pairwise(layer):
                    yield one, f"import {other}"
        case "independence":
            for one, other in itertools.pairwise(contract["modules"]):
                yield one, f"import {other}"
        case "acyclic_siblings":
            for package in contract["ancestors"]:
                yield f"{package}.circle_a", f"import {package}.circle_b"
                yield f"{package}.circle_b", f"import {package}.circle_a"
        case kind:
            pytest.fail(f"say here how a contract of type {kind} is broken")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for source in ROOT.glob("**/src/sn17*"):
        parts = source.relative_to(ROOT).parts
        if source.name in LINTER["root_packages"] and not any(part.startswith(".") for part in parts):
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def check(copy: Path) -> Iterator[Callable[[list[dict[str, Any]], list[Edit]], tuple[int, str]]]:
    """Run the linter over the copy with some contracts and some more imports."""
    touched: dict[Path, str | None] = {}

    def run(contracts: list[dict[str, Any]], edits: list[Edit]) -> tuple[int, str]:
        for module, statement in edits:
            path = copy.joinpath(*module.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            content = file.read_text() if file.exists() else None
            touched.setdefault(file, content)
            file.write_text((content or "") + f"\n{statement}\n")
        settings = {key: value for key, value in LINTER.items() if key != "contracts"}
        (copy / ".importlinter").write_text(_ini(settings, contracts))
        done = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--config", ".importlinter", "--no-logo"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    yield run
    for file, content in touched.items():
        if content is None:
            file.unlink()
        else:
            file.write_text(content)


def _ini(settings: dict[str, Any], contracts: list[dict[str, Any]]) -> str:
    lines = ["[importlinter]", *_lines(settings)]
    for number, contract in enumerate(contracts):
        lines += [f"[importlinter:contract:{number}]", *_lines(contract)]
    return "\n".join(lines) + "\n"


def _lines(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{key} = " + (
            "".join(f"\n    {item}" for item in value) if isinstance(value, list) else str(value)
        )


def test_the_copy_as_it_is_keeps_every_contract(
    check: Callable[[list[dict[str, Any]], list[Edit]], tuple[int, str]],
) -> None:
    code, output = check(CONTRACTS, [])
    assert code == 0, output
    assert f"{len(CONTRACTS)} kept, 0 broken" in output


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["name"])
def test_a_forbidden_import_breaks_the_contract(
    contract: dict[str, Any], check: Callable[[list[dict[str, Any]], list[Edit]], tuple[int, str]]
) -> None:
    edits = list(breaches(contract))
    code, output = check([contract], edits)
    assert code == 1, output
    assert "0 kept, 1 broken" in output
    # Every module that the contract speaks of is caught, not only one of them.
    for module, _ in edits:
        assert module.removesuffix(".circle_a").removesuffix(".circle_b") in output, f"{module}\n{output}"
