"""The forge's workflows, which no forge has run yet: what they run, and what comes before publishing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
NEEDS_A_NODE = {"make e2e"}
"""It wants root and a machine of its own; the job `kind` stands for it."""
PINS = re.compile(
    r"UV_VERSION=\d|zizmor==|actionlint@v|sigs\.k8s\.io/kind@v|uses: (?:azure/setup-helm|astral-sh/setup-uv)@"
)
"""Where the version of a tool stands."""


def jobs(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text())["jobs"]
    return found


def commands(found: Mapping[str, Any]) -> str:
    return "\n".join(step.get("run", "") for job in found.values() for step in job.get("steps", ()))


def before(found: Mapping[str, Any], name: str) -> set[str]:
    """All jobs that must have succeeded before that one."""
    needs = found[name].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*(before(found, each) for each in direct))


def test_a_forge_runs_what_ci_run_does_and_the_browser() -> None:
    ours = set(re.findall(r"^step (make [\w-]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert ours >= {"make test", "make conformance", "make e2e"}
    theirs = set(re.findall(r"^make [\w-]+", commands(jobs("ci.yml")), re.MULTILINE))
    assert theirs >= (ours - NEEDS_A_NODE) | {"make test-browser", "make test-cluster"}


def test_nothing_is_published_before_the_version_is_checked_and_the_tests_passed() -> None:
    found = jobs("release.yml")
    assert found["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in yaml.safe_load((WORKFLOWS / "ci.yml").read_text())[True]  # YAML 1.1: on
    publish = {name for name, job in found.items() if "write" in job.get("permissions", {}).values()}
    assert publish >= {"images", "chart", "publish-wheels"}
    for name in publish:
        assert {"version", "ci"} <= before(found, name), name
        assert found[name]["environment"] == "release", name


def test_digests_stand_in_the_release_and_in_the_summary() -> None:
    found = jobs("release.yml")
    kept = {
        step["with"]["name"].partition("-")[0]
        for name in ("images", "chart")
        for step in found[name]["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@")
    }
    assert kept == {"digest"}
    notes = commands({"notes": found["notes"]})
    assert "GITHUB_STEP_SUMMARY" in notes
    assert "gh release create" in notes


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_tokens_stay_small(path: Path) -> None:
    text = path.read_text()
    assert yaml.safe_load(text)["permissions"] == {}
    for used in re.findall(r"uses: (\S+(?: # v.+)?)", text):
        assert used.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", used), used


def pinned() -> Iterator[tuple[str, int]]:
    """Files and places in which the version of a tool stands."""
    places = [*WORKFLOWS.glob("*.yml"), *ROOT.glob("Dockerfile.*"), *ROOT.glob("dev/mk/*.mk")]
    for path in (*places, ROOT / "dev/tools/bootstrap.sh"):
        for found in PINS.finditer(path.read_text()):
            yield str(path.relative_to(ROOT)), found.start()


def test_renovate_finds_every_tool_whose_version_stands_in_a_file() -> None:
    managers = json.loads((ROOT / "renovate.json").read_text())["customManagers"]
    known = list(pinned())
    assert len({file for file, _ in known}) >= 8
    for file, place in known:
        text = (ROOT / file).read_text()
        spans = [
            found.span()
            for manager in managers
            if any(re.search(pattern.strip("/"), file) for pattern in manager["managerFilePatterns"])
            for pattern in manager["matchStrings"]
            for found in re.finditer(pattern.replace("(?<", "(?P<"), text)
        ]
        line = text.count("\n", 0, place) + 1
        assert any(
            text.count("\n", 0, start) + 1 <= line <= text.count("\n", 0, end) + 1 for start, end in spans
        ), f"{file}:{line}"
