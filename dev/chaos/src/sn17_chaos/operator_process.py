"""The operator as a process against a real API server, with the access that its README documents."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from sn17_cluster.client import Cluster

from sn17_chaos import real_fleet
from sn17_chaos.real_fleet import SCRAPE_SECONDS, Fleet
from sn17_chaos.waiting import wait_for

README = Path(__file__).resolve().parents[4] / "operator/README.md"


def documented_rules() -> list[dict[str, Any]]:
    """The RBAC rules as the operator's README gives them: the tests run with these and nothing more."""
    text = README.read_text()
    block = text[text.index("```yaml\nrules:") + len("```yaml\n") :].split("```")[0]
    rules: list[dict[str, Any]] = yaml.safe_load(block)["rules"]
    return rules


def restricted_kubeconfig(cluster: Cluster, namespace: str, folder: Path, server: str | None = None) -> Path:
    """Access as a service account that has only the documented rules; ``server`` stands in between."""
    subject = {"kind": "ServiceAccount", "name": "sn17-operator", "namespace": namespace}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sn17-operator"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "sn17-operator"},
            "rules": documented_rules(),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "sn17-operator"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sn17-operator"},
            "subjects": [subject],
        },
        namespace=namespace,
    )
    token = cluster.kubectl("create", "token", "sn17-operator", "-n", namespace, "--duration=1h").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    if server is not None:
        config["clusters"] = [{"name": c["name"], "cluster": {"server": server}} for c in config["clusters"]]
    path = folder / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class OperatorProcess:
    """``python -m sn17_operator`` against the API server; may be killed and started again."""

    def __init__(
        self, fleet: Fleet, folder: Path, *, identity: str = "op", server: str | None = None, **env: str
    ) -> None:
        token = folder / "token"
        token.write_text(real_fleet.TOKEN)
        self.log = folder / f"{identity}.log"
        self._ready = folder / f"{identity}.ready"
        kubeconfig = restricted_kubeconfig(fleet.cluster, fleet.namespace, folder, server)
        self._env = {
            **fleet.cluster.environment,
            "KUBECONFIG": str(kubeconfig),
            "SN17_NAMESPACE": fleet.namespace,
            "SN17_POD_NAME": identity,
            "SN17_OPS_PORT": "0",
            "SN17_READY_FILE": str(self._ready),
            "SN17_ADMIN_TOKEN_FILE": str(token),
            "SN17_PROMETHEUS__URL": fleet.prometheus.url,
            "SN17_PROMETHEUS__SCRAPE_INTERVAL_SECONDS": str(SCRAPE_SECONDS),
            "SN17_PROMETHEUS__TIMEOUT_SECONDS": "3",
            "SN17_TICK_SECONDS": "1",
            "SN17_LEASE__DURATION_SECONDS": "4",
            "SN17_LEASE__DEADLINE_SECONDS": "3",
            "SN17_LEASE__RETRY_SECONDS": "0.5",
            "SN17_DIE_WITH_PARENT": "true",
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sn17_operator"],
                env={**os.environ, **self._env},
                stdout=log,
                stderr=log,
            )
        wait_for("the operator's ports", self._ready.exists, 90)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{json.loads(self._ready.read_text())['ops_port']}"

    def ticks(self) -> float:
        """Ticks that are finished."""
        lines = urlopen(f"{self.url}/metrics").read().decode().splitlines()
        return float(
            next(line for line in lines if line.startswith("sn17_tick_duration_seconds_count")).split()[1]
        )

    def tick_age(self) -> float:
        """Seconds since the last finished tick. Raises OSError, StopIteration or ValueError without one."""
        lines = urlopen(f"{self.url}/metrics", timeout=2).read().decode().splitlines()
        return float(next(line for line in lines if line.startswith("sn17_tick_age_seconds ")).split()[1])

    def wait_ticks(self, count: int) -> None:
        start = self.ticks()
        wait_for("ticks", lambda: self.ticks() >= start + count)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self.process = None
        return code


@contextlib.contextmanager
def running(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    try:
        operator.start()
        yield operator
    finally:
        operator.kill()
