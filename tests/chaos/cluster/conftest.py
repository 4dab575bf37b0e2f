"""One cluster of two nodes for everything here, and one release on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from sn17_chaos.cluster_bed import Bed, bed
from sn17_chaos.cluster_world import ClusterWorld
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import MissingError


@pytest.fixture(scope="session")
def broken_bed() -> Iterator[Bed]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(bed())
        except MissingError as missing:
            unavailable(missing)
        yield made


@pytest.fixture(scope="session")
def world(broken_bed: Bed) -> Iterator[ClusterWorld]:
    """A release in a namespace that enforces Pod Security `restricted`, healthy and at work."""
    made = ClusterWorld(broken_bed, "chaos")
    try:
        made.start()
        made.await_first()
        yield made
    finally:
        print("\n".join(made.log))
        made.close()
