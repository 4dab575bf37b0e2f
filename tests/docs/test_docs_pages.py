"""Each page says for whom it is, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_begins_with_for_whom_it_is(page: Path) -> None:
    text = re.sub(r"<!--.*?-->\n*", "", page.read_text(), flags=re.DOTALL)
    title, _, rest = text.partition("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert re.match(r"For (whoever|anybody|everybody|the (person|owner)) ", rest), rest[:80]


def test_a_runbook_names_the_severity_of_its_alert() -> None:
    found = {}
    for file in (ROOT / "charts/sn17/rules").glob("*.yaml"):
        for group in yaml.safe_load(re.sub(r"@\w+@", "1", file.read_text()))["groups"]:
            found |= {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"] if "alert" in rule}
    assert len(found) >= 25
    for alert, severity in found.items():
        text = (ROOT / f"docs/runbooks/{alert}.md").read_text()
        assert f"(severity: {severity})" in text, alert


def test_the_journals_commands_name_the_namespace_and_their_pod_takes_what_a_cluster_asks_for() -> None:
    text = (ROOT / "docs/chart.md").read_text()
    section = text.partition("## The journal: back up and restore")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert block.startswith("namespace=mining\n")
        for command in re.findall(r"kubectl \w+ (.*)", block):
            assert command.startswith('-n "$namespace" '), command
    (manifest,) = re.findall(r"<<END\n(.*?)\nEND", blocks[1], re.DOTALL)
    spec = yaml.safe_load(manifest.replace("${pull:-[]}", '[{"name":"mine"}]'))["spec"]
    assert spec["imagePullSecrets"] == [{"name": "mine"}]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"].keys() == {"memory"}


def links(root: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import links;"
        " sys.exit(links.main(pathlib.Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "dev/tools"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "a.md").write_text(
        "# A page\n\n[b](b.md) [c](c.md) [up](#a-page) [gone](b.md#gone) [there](b.md#its-part)\n"
        "[out](https://example.org) `[code](x.md)`\n\n```\n[code](y.md)\n```\n"
    )
    (tmp_path / "b.md").write_text("# B\n\n## Its *part*\n")
    answer = links(tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        "a.md: c.md: there is no c.md",
        "a.md: b.md#gone: there is no heading for #gone",
    ]
