"""The command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sn17.console import new_console, print_json
from sn17.doctor.local.checks import local_checks
from sn17.doctor.local.probes import LocalMachine
from sn17.doctor.model import Check, Outcome, ProbeError, Result, exit_code
from sn17.doctor.runner import run
from sn17.doctor.tables import as_json, line
from sn17.options import Context, Json, Kubeconfig, Namespace, ReleaseName
from sn17.up.status import RUNS


def doctor(
    state_dir: Annotated[Path, typer.Option(help="Folder of local runs, for disk and rights.")] = RUNS,
    port: Annotated[
        list[int] | None,
        typer.Option(min=1, max=65535, help="A port that must be free, besides the services' usual ones."),
    ] = None,
    hotkey: Annotated[
        Path | None, typer.Option(envvar="SN17_HOTKEY_FILE", help="The hotkey file to check.")
    ] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="Folder of a fetched checkpoint, or of several.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="An image that a registry must have, besides the release's.")
    ] = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    prometheus: Annotated[
        str | None, typer.Option(help="Prometheus to ask. Default: the operator's, through the API server.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run only the check of this name.")] = None,
    json: Json = False,
) -> None:
    """Check what stops a run or a release: one line per check, with its remedy.

    Exit code 0: nothing failed. 1: a check failed, or could not find out (unknown).
    """
    machine = LocalMachine(os.environ)
    if release is None:
        checks = local_checks(
            machine, state_dir=state_dir, ports=port or (), hotkey=hotkey, models=model or ()
        )
    else:
        checks = []
    checks += _cluster(machine, release, namespace, context, kubeconfig, prometheus, image or ())
    results: list[Result] = []
    console = new_console()
    for result in run(_chosen(checks, only or ())):
        results.append(result)
        if not json:
            console.print(line(result), soft_wrap=True)
    code = exit_code(results)
    if json:
        print_json(as_json(results, code))
    else:
        console.print(_sum(results), style="green" if code == 0 else "red")
    raise typer.Exit(code)


def _cluster(
    machine: LocalMachine,
    release: str | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: Path | None,
    prometheus: str | None,
    images: Sequence[str],
) -> list[Check]:
    # Half a second of imports, which a look at this machine alone does without.
    from sn17.doctor.release.checks import (
        cluster_checks,
        image_check,
        no_cluster_check,
        release_checks,
        unusable_cluster_check,
    )
    from sn17.doctor.release.connect import Way
    from sn17.doctor.release.kube import KubeCluster
    from sn17.doctor.release.prometheus import HttpPrometheus
    from sn17.doctor.release.registry import HttpRegistry

    registry = HttpRegistry()
    named = [image_check(images, registry)] if images else []
    way = Way(kubeconfig, context)
    if release is None and not way.named(os.environ):
        return [*named, no_cluster_check()]
    try:
        place = namespace or way.namespace()
    except ProbeError as error:
        return [*named, unusable_cluster_check(error)]
    cluster = KubeCluster(way.connect, place)
    checks = cluster_checks(cluster, machine, release)
    if release is not None:
        reader = None if prometheus is None else HttpPrometheus(prometheus)
        checks += release_checks(cluster, release, place, registry, reader)
    return checks + named


def _chosen(checks: Sequence[Check], names: Sequence[str]) -> Sequence[Check]:
    known = [check.name for check in checks]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"there is no check {unknown[0]!r}, only: {', '.join(known)}", param_hint="--only"
        )
    return [check for check in checks if not names or check.name in names]


def _sum(results: list[Result]) -> str:
    counts = {outcome: sum(r.finding.outcome is outcome for r in results) for outcome in Outcome}
    return ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count)
