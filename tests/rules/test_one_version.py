"""The version stands in many files and is one; packages carry what an index and a licence ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MEMBERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
PACKAGES = sorted(file for pattern in MEMBERS for file in ROOT.glob(f"{pattern}/pyproject.toml"))


def places(root: Path) -> dict[str, str]:
    """Every place that names the version, and what it says."""
    found = {"pyproject.toml": tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]}
    for file in (*PACKAGES, ROOT / "tests/conformance/pyproject.toml"):
        name = str(file.relative_to(ROOT))
        found[name] = tomllib.loads((root / name).read_text())["project"]["version"]
    chart = yaml.safe_load((root / "charts/sn17/Chart.yaml").read_text())
    found |= {"chart": chart["version"], "appVersion": chart["appVersion"]}
    for file in sorted(root.glob("Dockerfile.*")):
        (line,) = (row for row in file.read_text().splitlines() if row.startswith("ARG VERSION="))
        found[file.name] = line.removeprefix("ARG VERSION=")
    ours = {package["name"]: package for package in tomllib.loads((root / "uv.lock").read_text())["package"]}
    for file in PACKAGES:
        name = tomllib.loads(file.read_text())["project"]["name"]
        found[f"uv.lock: {name}"] = ours[name]["version"]
    return found


def test_every_place_names_the_same_version() -> None:
    assert len(set(places(ROOT).values())) == 1


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    files = [ROOT / "pyproject.toml", ROOT / "uv.lock", ROOT / "charts/sn17/Chart.yaml", *PACKAGES]
    files += [ROOT / "tests/conformance/pyproject.toml", ROOT / "dev/tools/release.py"]
    for file in (*files, *ROOT.glob("Dockerfile.*")):
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return tmp_path


def release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "dev/tools/release.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_new_version_reaches_every_place_and_nothing_else(copy: Path) -> None:
    before = (copy / "uv.lock").read_text()
    assert release(copy, "set-version", "7.8.9rc1").returncode == 0
    assert set(places(copy).values()) == {"7.8.9rc1"}
    assert release(copy, "version").stdout == "7.8.9rc1\n"
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), (copy / "uv.lock").read_text().splitlines(), strict=True)
        if old != new
    ]
    assert {new for _, new in changed} == {'version = "7.8.9rc1"'}


@pytest.mark.parametrize("version", ["", "1", "v1.2.3", "1.2", "1.2.3-beta", "1.2.3\n"])
def test_what_is_no_version_is_refused_and_changes_nothing(copy: Path, version: str) -> None:
    before = places(copy)
    answer = release(copy, "set-version", version)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert places(copy) == before


def test_the_address_of_the_repository_can_be_set_twice(copy: Path) -> None:
    for url in ("https://forge.example/one/sn17", "https://forge.example/two/sn17"):
        assert release(copy, "set-urls", url).returncode == 0
        for file in PACKAGES:
            urls = tomllib.loads((copy / file.relative_to(ROOT)).read_text())["project"]["urls"]
            assert urls["Source"] == url
    assert release(copy, "set-urls", "http://forge.example/sn17").returncode == 2


def git(root: Path, *arguments: str) -> str:
    # Whatever the person's own settings ask for (signatures, hooks).
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": os.environ["PATH"]}
    command = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=n@example.org", *arguments]
    return subprocess.run(command, env=nobody, capture_output=True, text=True, check=True).stdout.strip()


def test_images_are_tagged_with_the_commit_unless_it_is_a_release(copy: Path) -> None:
    (version,) = set(places(copy).values())
    assert release(copy, "tag").stdout == f"{version}\n", "no checkout: what was unpacked is a release"
    git(copy, "init", "-q")
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "one")
    commit = git(copy, "rev-parse", "--short=12", "HEAD")
    assert release(copy, "tag").stdout == f"{commit}\n"
    git(copy, "tag", f"v{version}")
    assert release(copy, "tag").stdout == f"{version}\n"
    (copy / "pyproject.toml").write_text((copy / "pyproject.toml").read_text() + "\n")
    assert release(copy, "tag").stdout == f"{commit}-changed\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--tag=release", "operator"], ["docker.io/sn17/operator:{version}"]),
        (
            ["--tag=abc", "trellis", "trellis-torch"],
            ["docker.io/sn17/trellis:abc-procedural", "docker.io/sn17/trellis:abc-torch"],
        ),
    ],
)
def test_names_of_images_carry_tag_and_backend(arguments: list[str], names: list[str]) -> None:
    command = [sys.executable, str(ROOT / "dev/tools/images.py"), "--name", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    (version,) = set(places(ROOT).values())
    assert answer.stdout.splitlines() == [name.format(version=version) for name in names]


@pytest.mark.parametrize("file", PACKAGES, ids=lambda file: str(file.parent.relative_to(ROOT)))
def test_a_package_is_private_or_complete(file: Path) -> None:
    project = tomllib.loads(file.read_text())["project"]
    if "Private :: Do Not Upload" in project.get("classifiers", ()):
        return
    assert (file.parent / project["readme"]).read_text().startswith(f"# {project['name']}\n")
    assert project["license-files"] == ["LICENSE"]
    assert (file.parent / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "Typing :: Typed" in project["classifiers"]
    assert (next((file.parent / "src").iterdir()) / "py.typed").exists()
