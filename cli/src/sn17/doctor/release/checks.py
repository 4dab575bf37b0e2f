"""The checks of a cluster and of a release in it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sn17.doctor.local.machine import judge_clock
from sn17.doctor.local.probes import Machine
from sn17.doctor.model import Check, Finding, ProbeError, not_used
from sn17.doctor.release.access import judge_definition, judge_rights
from sn17.doctor.release.images import judge_images
from sn17.doctor.release.kube import Cluster
from sn17.doctor.release.policies import judge_no_policies
from sn17.doctor.release.prometheus import PrometheusReader
from sn17.doctor.release.registry import Registry
from sn17.doctor.release.scraping import judge_scraping
from sn17.doctor.release.state import judge_nodes, judge_release_models, judge_secret

SECONDS: Final = 30.0
REGISTRY_SECONDS: Final = 90.0


def cluster_checks(cluster: Cluster, machine: Machine, release: str | None) -> list[Check]:
    """Of the cluster itself, with or without a release."""

    def clock() -> Finding:
        return judge_clock(replace(machine.clock(), offset_seconds=cluster.clock_offset()))

    return [
        Check("clock of cluster", clock, SECONDS),
        Check("rights", lambda: judge_rights(cluster.rights(release)), SECONDS),
        Check("definition", lambda: judge_definition(cluster.definition(), apply_definition()), SECONDS),
    ]


def release_checks(
    cluster: Cluster,
    release: str,
    namespace: str,
    registry: Registry,
    prometheus: PrometheusReader | None,
) -> list[Check]:
    """Of a release."""
    return [
        Check("images", lambda: judge_images(cluster.images(release, registry), namespace), REGISTRY_SECONDS),
        Check("hotkey Secret", lambda: judge_secret(cluster.secret(release)), SECONDS),
        Check("nodes", lambda: judge_nodes(cluster.workers(release)), SECONDS),
        Check("model of workers", lambda: judge_release_models(cluster.workers(release)), SECONDS),
        Check("Prometheus", lambda: judge_scraping(cluster.scraping(release, prometheus)), SECONDS),
        Check("network policies", lambda: judge_no_policies(cluster.policies(release)), SECONDS),
    ]


def image_check(references: Sequence[str], registry: Registry) -> Check:
    """Of images that the user names."""

    def run() -> Finding:
        return judge_images([registry.ask(each, {}) for each in references], "default")

    return Check("images", run, REGISTRY_SECONDS)


def no_cluster_check() -> Check:
    """What is not looked at, since no cluster is named."""
    return Check("cluster", lambda: not_used("none is named", "name one with KUBECONFIG or --kubeconfig"))


def unusable_cluster_check(error: ProbeError) -> Check:
    """A cluster that was named and cannot be used."""
    return Check("cluster", lambda: error.finding)


def apply_definition() -> str:
    """The command that applies the CustomResourceDefinition of the installed version."""
    return (
        f"{shlex.quote(sys.executable)} -m sn17_operator crd | "
        "kubectl apply --server-side --force-conflicts -f -"
    )
