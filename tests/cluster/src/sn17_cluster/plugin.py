"""pytest fixtures. Installed with the workspace, so that every package's tests can ask for them by name.

A fixture whose cluster this machine cannot run skips the test and says in one sentence what is missing; with
`SN17_REQUIRE_CLUSTER=1` it fails instead, so that a pipeline cannot pass by skipping.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from sn17_cluster.client import Cluster
    from sn17_cluster.controlplane import ControlPlane


def unavailable(reason: object) -> NoReturn:
    """Skip the test, or fail it where clusters are required."""
    if os.environ.get("SN17_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"SN17_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server with its controllers and no node; one per test process."""
    # Imported late: most test runs need no cluster and should not pay for it.
    from sn17_cluster.controlplane import control_plane as running
    from sn17_cluster.requirements import MissingError

    try:
        context = running()
        plane = context.__enter__()
    except MissingError as missing:
        unavailable(missing)
    try:
        yield plane
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Cluster:
    """Administrator's access to `control_plane`."""
    return control_plane.cluster
