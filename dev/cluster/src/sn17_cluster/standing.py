"""The cluster that `make cluster-up` starts and `make cluster-down` ends: it outlives the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sn17_files import write_atomically

from sn17_cluster.client import Cluster
from sn17_cluster.requirements import MissingError, require_tools
from sn17_cluster.state import ProcessId, base_folder

UP_TIMEOUT = 180.0
DOWN_TIMEOUT = 60.0


def _record() -> Path:
    return base_folder() / "standing.json"


def _log() -> Path:
    return base_folder() / "standing.log"


def _read() -> tuple[ProcessId, dict[str, object]] | None:
    """The owner of the standing cluster and what it wrote, or None when it is not alive."""
    try:
        saved = json.loads(_record().read_text())
    except FileNotFoundError:
        return None
    owner = ProcessId(*saved["owner"])
    return (owner, saved) if owner.alive() else None


def up(nodes: int) -> Cluster:
    """Start the standing cluster, or find it running already.

    Raises:
        MissingError: it did not come up; the message says why.
    """
    if _read() is None:
        base_folder().mkdir(mode=0o711, parents=True, exist_ok=True)
        _record().unlink(missing_ok=True)
        with _log().open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "sn17_cluster", "serve", f"--nodes={nodes}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + UP_TIMEOUT
        while _read() is None:
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                raise MissingError(_log().read_text().strip() or "the cluster did not come up in time")
            time.sleep(0.1)
    return attach()


def serve(nodes: int) -> None:
    """Own a cluster until SIGTERM or SIGINT. This is the process that `up` leaves behind."""
    from sn17_cluster.local import local_cluster

    ends = {signal.SIGTERM, signal.SIGINT}
    with local_cluster(nodes) as local:
        cluster = local.cluster
        me = ProcessId.of(os.getpid())
        saved = {
            "owner": [me.pid, me.started],
            "kubeconfig": str(cluster.kubeconfig),
            "network": list(cluster.network),
            "sockets": [str(node.socket) for node in local.nodes],
        }
        # Blocked before the record appears: from then on an end may be asked for at any time.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        write_atomically(_record(), json.dumps(saved, indent=1).encode())
        signal.sigwait(ends)
        _record().unlink(missing_ok=True)


def attach() -> Cluster:
    """Access to the standing cluster. Raises MissingError when there is none."""
    found = _read()
    if found is None:
        raise MissingError("no cluster is up: run `make cluster-up`")
    saved = found[1]
    network, sockets = saved["network"], saved["sockets"]
    assert isinstance(network, list)
    assert isinstance(sockets, list)

    def load(archive: Path) -> None:
        for socket in sockets:
            command = ["ctr", f"--address={socket}", "--namespace=k8s.io", "images", "import", str(archive)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return Cluster(
        Path(str(saved["kubeconfig"])),
        require_tools(["kubernetes", "helm4"]),
        runs_pods=True,
        network=network,
        load=load,
    )


def down() -> bool:
    """End the standing cluster; False when none was up. Raises MissingError when it does not end."""
    found = _read()
    if found is None:
        return False
    owner = found[0]
    owner.signal(signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT
    while owner.alive():
        if time.monotonic() > deadline:
            raise MissingError(f"the cluster's process {owner.pid} does not end: see {_log()}")
        time.sleep(0.1)
    return True
