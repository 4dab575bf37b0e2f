"""pytest fixtures. Installed with the workspace, so that every package's tests can ask for them by name.

A fixture whose cluster this machine cannot run skips the test and says in one sentence what is missing; with
`SN17_REQUIRE_CLUSTER=1` it fails instead, so that a pipeline cannot pass by skipping.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest

if TYPE_CHECKING:
    from sn17_cluster.client import Cluster
    from sn17_cluster.controlplane import ControlPlane


T = TypeVar("T")


def unavailable(reason: object) -> NoReturn:
    """Skip the test, or fail it where clusters are required."""
    if os.environ.get("SN17_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"SN17_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(str(reason))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "node: needs a cluster that runs pods, which takes root or SN17_KUBECONFIG"
    )


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server with its controllers and no node; one per test process."""
    # Imported late: most test runs need no cluster and should not pay for it.
    from sn17_cluster.controlplane import control_plane as running

    with _or_unavailable(running()) as plane:
        yield plane


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster that runs pods: one of our own with a node, or the one that SN17_KUBECONFIG names."""
    from sn17_cluster.providers import provide

    with _or_unavailable(provide()) as access:
        yield access


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the cluster says about the namespaces of a failed test."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    if report.failed and call.when == "call":
        clusters = [arguments[name] for name in ("cluster", "api") if name in arguments]
        for access in clusters:
            for namespace in access.namespaces:
                report.sections.append((f"namespace {namespace}", access.summary(namespace)))
    return report


@contextlib.contextmanager
def _or_unavailable(context: AbstractContextManager[T]) -> Iterator[T]:
    from sn17_cluster.requirements import MissingError

    with contextlib.ExitStack() as stack:
        try:
            entered = stack.enter_context(context)
        except MissingError as missing:
            unavailable(missing)
        yield entered


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Cluster:
    """Administrator's access to `control_plane`."""
    return control_plane.cluster
