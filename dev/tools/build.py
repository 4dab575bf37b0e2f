#!/usr/bin/env python3
"""Builds the command-line tools of the cluster tests from Go modules, once, into a cache.

    python3 dev/tools/build.py                 build every group that is not in the cache yet
    python3 dev/tools/build.py kubernetes etcd build these groups
    python3 dev/tools/build.py --paths         print {group: {tool: path or null}} as JSON

`SN17_KUBERNETES=1.37` takes that release of Kubernetes instead of the usual one, here and in every test.

The cache is `$SN17_TOOLS` or `~/.cache/sn17-tools`. A group lives in `<group>-<hash>/bin`; the hash covers
the module's files and the build recipe, so another checkout with the same files shares the binaries. Needs
nothing but Python and Go.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
K8S = "k8s.io/kubernetes/cmd"
VERSION_VAR = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Group:
    """One Go module under tools/: `binaries` maps the name of a binary to its main package.

    `ldflags` may hold `{version}`, `{major}`, `{minor}`: those of the module `module` as go.mod requires it.
    """

    binaries: dict[str, str]
    module: str = ""
    ldflags: str = "-s -w"
    tags: str = ""


KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
)

GROUPS: dict[str, Group] = {
    # Without the version variables the API server reports v0.0.0 and Helm refuses charts with a kubeVersion.
    "kubernetes": Group(
        {name: f"{K8S}/{name}" for name in KUBERNETES},
        module="k8s.io/kubernetes",
        ldflags=(
            f"-s -w -X {VERSION_VAR}.gitVersion={{version}} -X {VERSION_VAR}.gitMajor={{major}}"
            f" -X {VERSION_VAR}.gitMinor={{minor}}"
        ),
    ),
    "etcd": Group({"etcd": "go.etcd.io/etcd/server/v3"}),
    "helm4": Group({"helm": "helm.sh/helm/v4/cmd/helm"}),
    "helm3": Group({"helm3": "helm.sh/helm/v3/cmd/helm"}),
    "coredns": Group({"coredns": "github.com/coredns/coredns"}),
    # Only the Kubernetes discovery: the cloud ones are most of the binary and of the build.
    "prometheus": Group(
        {
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        tags="netgo,remove_all_sd,enable_kubernetes_sd",
    ),
    "kubeconform": Group({"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}),
    "pause": Group({"pause": "."}),
}

RELEASES = {"1.34": "kubernetes", "1.37": "kubernetes-1.37"}
"""Folders of the releases of Kubernetes that are tested; the first is the usual one."""


class BuildError(Exception):
    """What stands in the way, in one sentence for the person at the terminal."""


def module_folder(name: str) -> Path:
    """The Go module of a group: for Kubernetes that of the release that `$SN17_KUBERNETES` asks for."""
    if name != "kubernetes":
        return TOOLS / name
    release = os.environ.get("SN17_KUBERNETES") or next(iter(RELEASES))
    if release not in RELEASES:
        raise BuildError(f"SN17_KUBERNETES={release} is none of {', '.join(RELEASES)}: choose one of these")
    return TOOLS / RELEASES[release]


def cache_root() -> Path:
    return Path(os.environ.get("SN17_TOOLS") or Path.home() / ".cache" / "sn17-tools")


def group_folder(name: str) -> Path:
    """Where the binaries of a group are or will be; changes with anything that changes the binaries."""
    group = GROUPS[name]
    digest = hashlib.sha256(repr((group, platform.machine(), platform.system())).encode())
    for path in sorted(module_folder(name).iterdir()):
        if path.suffix in {".mod", ".sum", ".go"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return cache_root() / f"{name}-{digest.hexdigest()[:12]}"


def tool_paths() -> dict[str, dict[str, str | None]]:
    """By group: each tool and its path, None where this checkout's version is not in the cache."""
    paths = {
        name: {binary: group_folder(name) / "bin" / binary for binary in group.binaries}
        for name, group in GROUPS.items()
    }
    return {
        name: {binary: str(path) if path.exists() else None for binary, path in group.items()}
        for name, group in paths.items()
    }


def is_built(name: str) -> bool:
    return all((group_folder(name) / "bin" / binary).exists() for binary in GROUPS[name].binaries)


def check_go(module: Path) -> None:
    go = shutil.which("go")
    needed = re.search(r"^go (\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    version = needed[1] if needed else "1.26"
    if go is None:
        raise BuildError(
            f"Go is not installed: the cluster tools are built from source with Go {version} or later"
            " (https://go.dev/dl; Debian's golang-go where it is recent enough)"
        )
    # Inside the module Go itself compares versions, or fetches the toolchain where GOTOOLCHAIN lets it.
    answer = subprocess.run([go, "env", "GOVERSION"], cwd=module, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise BuildError(f"the installed Go cannot build {module.name}: {answer.stderr.strip()}")


def recipe(group: Group, module: Path) -> tuple[str, list[str]]:
    """The linker flags with the version filled in, and the other build flags."""
    ldflags = group.ldflags
    if group.module:
        found = re.search(
            rf"^\s*{re.escape(group.module)} (v(\d+)\.(\d+)\S*)", (module / "go.mod").read_text(), re.M
        )
        if found is None:
            raise BuildError(f"{module / 'go.mod'} does not require {group.module}")
        ldflags = ldflags.format(version=found[1], major=found[2], minor=found[3])
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false"]
    return ldflags, [*flags, f"-tags={group.tags}"] if group.tags else flags


def build(name: str, jobs: int | None) -> None:
    """Build one group unless the cache has it. A second builder of the same group waits for the first."""
    folder, module, group = group_folder(name), module_folder(name), GROUPS[name]
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_built(name):
            print(f"{name}: present in {folder}", flush=True)
            return
        check_go(module)
        print(f"{name}: building {', '.join(group.binaries)} ...", flush=True)
        started = time.monotonic()
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "bin").mkdir(parents=True)
        ldflags, flags = recipe(group, module)
        if jobs:
            flags = [*flags, f"-p={jobs}"]
        for binary, package in group.binaries.items():
            command = [
                "go",
                "build",
                *flags,
                "-ldflags",
                ldflags,
                "-o",
                str(partial / "bin" / binary),
                package,
            ]
            env = {**os.environ, "CGO_ENABLED": "0"}
            if subprocess.run(command, cwd=module, env=env, check=False).returncode:
                raise BuildError(f"building {binary} failed; Go's own words stand above")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        size = sum(path.stat().st_size for path in (folder / "bin").iterdir()) / 1e6
        print(f"{name}: built in {time.monotonic() - started:.0f} s, {size:.0f} MB", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Build the tools of the cluster tests into a cache.",
        epilog=f"groups: {', '.join(GROUPS)}; afterwards Go's caches can go: go clean -cache -modcache",
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="groups to build (default: all)")
    parser.add_argument("--jobs", type=int, help="parallel compilations (default: Go's own)")
    parser.add_argument(
        "--paths", action="store_true", help="print the paths of the cached tools and build nothing"
    )
    args = parser.parse_args()
    if unknown := sorted(set(args.groups) - set(GROUPS)):
        parser.error(f"no such group: {', '.join(unknown)}")
    try:
        if args.paths:
            print(json.dumps(tool_paths(), indent=2))
            return 0
        for name in args.groups or GROUPS:
            build(name, args.jobs)
    except BuildError as error:
        print(f"tools: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
