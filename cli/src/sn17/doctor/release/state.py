"""Workers without a node or a model, and the hotkey's Secret."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sn17.doctor.model import Finding, failed, not_used, ok, unknown, warning


@dataclass(frozen=True, slots=True)
class Workers:
    """Pods of the workers: how many, how many ready, and with words those without node or weights."""

    release: str
    namespace: str
    pods: int
    ready: int
    unscheduled: Sequence[tuple[str, str]] = ()
    without_model: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class HotkeySecret:
    """The Secret that the miner mounts. ``there`` is False where the namespace has none; ``problem`` is why
    what it holds cannot sign.
    """

    namespace: str
    name: str
    key: str
    there: bool
    address: str = ""
    problem: str = ""


def judge_nodes(found: Workers) -> Finding:
    if not found.pods:
        return _no_workers(found)
    if found.unscheduled:
        said = "; ".join(f"{pod}: {words}" for pod, words in found.unscheduled)
        return failed(
            f"no node takes {said}",
            "add a node with a free GPU and NVIDIA's device plugin, ask for another resource "
            "(trellis.gpu.resource), or run fewer workers",
            "kubectl describe nodes | grep -A8 Allocatable",
        )
    return ok(f"{found.pods} workers have a node")


def judge_release_models(found: Workers) -> Finding:
    """A worker holds every file against its manifest before it says that it is ready."""
    if not found.pods:
        return _no_workers(found)
    if found.without_model:
        pod, words = found.without_model[0]
        return failed(
            f"{pod}: {words}",
            "name the commits of all repositories (trellis.model.revision, .decoders.revision, "
            ".textEncoder.revision), or fill the claim",
        )
    if not found.ready:
        return unknown(
            f"none of {found.pods} workers is ready yet, and only a ready one has verified its files",
            "wait, or read its log",
            f"kubectl logs -n {shlex.quote(found.namespace)} -l app.kubernetes.io/instance="
            f"{shlex.quote(found.release)},app.kubernetes.io/component=trellis --tail=20",
        )
    if found.ready < found.pods:
        return warning(f"{found.ready} of {found.pods} workers are ready and have verified their files")
    return ok(f"{found.ready} workers are ready: each has held its files against their manifest")


def _no_workers(found: Workers) -> Finding:
    return unknown(
        f"release {found.release} has no worker's pod", "trellis.replicas says how many there are to be"
    )


def judge_secret(found: HotkeySecret | None) -> Finding:
    if found is None:
        return not_used("this release has no miner")
    in_namespace = f"-n {shlex.quote(found.namespace)}"
    make = f"sn17 wallet secret {in_namespace} --name {found.name} --key {found.key} | kubectl apply -f -"
    if not found.there:
        return failed(
            f"namespace {found.namespace} has no Secret {found.name} with the key {found.key}",
            "make it from your wallet (--wallet, --hotkey and --path name another than the default one)",
            make,
        )
    if found.problem:
        return failed(f"Secret {found.name}: {found.problem}", "make it anew from your wallet", make)
    return ok(f"{found.address} in Secret {found.name}")
