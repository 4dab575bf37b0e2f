"""`sn17 doctor --release` on a real API server with the chart installed: each fault is said, and what the
finding advises is carried out and helps.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from bittensor_wallet import Keypair
from sn17_chaos.real_fleet import CRD, Prometheus, Worker
from sn17_chaos.waiting import free_port, wait_for
from sn17_cluster.client import Cluster
from sn17_protocol.wallet import write_hotkey

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/sn17"
BIN = Path(sys.executable).parent
WORKER = {"app.kubernetes.io/part-of": "sn17", "app.kubernetes.io/component": "trellis"}


class Doctor:
    """The command against one namespace, and a shell in which its advice is followed."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        tools = folder / "tools"
        tools.mkdir()
        for name in ("kubectl", "helm"):
            (tools / name).symlink_to(cluster.tools[name])
        self.env = {**cluster.environment, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}"}

    def __call__(
        self, *args: str, env: Mapping[str, str] | None = None, release: str = "sn17"
    ) -> dict[str, dict[str, str]]:
        """Findings by name."""
        argv = [str(BIN / "sn17"), "doctor", "--json", "--release", release, "-n", self.namespace, *args]
        answer = subprocess.run(
            argv, capture_output=True, text=True, env={**self.env, **(env or {})}, timeout=150, check=False
        )
        assert "Traceback" not in answer.stderr
        assert answer.returncode in (0, 1), answer.stderr
        return {check["name"]: check for check in json.loads(answer.stdout)["checks"]}

    def one(
        self, name: str, *args: str, env: Mapping[str, str] | None = None, release: str = "sn17"
    ) -> dict[str, str]:
        """The finding of one check, the only one that is run."""
        return self("--only", name, *args, env=env, release=release)[name]

    def carry_out(self, finding: Mapping[str, str], **env: str) -> None:
        """Paste the command of a finding into a shell in the project's folder."""
        assert finding["command"], finding
        answer = subprocess.run(
            ["bash", "-ec", "set -o pipefail; " + finding["command"]],
            cwd=ROOT,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert answer.returncode == 0, (finding["command"], answer.stdout, answer.stderr)


@pytest.fixture
def doctor(api_with_crd: Cluster, tmp_path: Path) -> Iterator[Doctor]:
    """A release from the chart, without a local validator, so that it needs a hotkey and the internet."""
    with api_with_crd.namespace("doctor") as namespace:
        api_with_crd.helm(
            "install", "sn17", str(CHART), "-n", namespace,
            "-f", str(CHART / "values-laptop.yaml"),
            "--set", "localValidators.enabled=false,miner.chain.source=sdk",
            "--set", "grafana.enabled=false",
        )  # fmt: skip
        yield Doctor(api_with_crd, namespace, tmp_path)


def test_rights_and_definition_of_a_fresh_release_are_fine(doctor: Doctor) -> None:
    found = doctor()
    assert found["rights"]["outcome"] == "ok", found["rights"]
    assert found["definition"]["outcome"] == "ok", found["definition"]
    assert found["network policies"]["outcome"] == "ok", found["network policies"]
    assert found["clock of cluster"]["outcome"] in ("ok", "warning")


def test_a_user_without_rights_has_them_after_the_remedy(doctor: Doctor) -> None:
    where = ("-n", doctor.namespace)
    doctor.cluster.kubectl("create", "serviceaccount", "poor", *where)
    token = doctor.cluster.kubectl("create", "token", "poor", *where).strip()
    config = yaml.safe_load(doctor.cluster.kubeconfig.read_text())
    config["users"] = [{"name": "poor", "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = "poor"
    path = doctor.folder / "poor.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = [str(BIN / "sn17"), "doctor", "--json", "-n", doctor.namespace, "--kubeconfig", str(path)]

    def asked() -> dict[str, dict[str, str]]:
        answer = subprocess.run(argv, capture_output=True, text=True, env=doctor.env, check=False)
        return {check["name"]: check for check in json.loads(answer.stdout)["checks"]}

    found = asked()
    assert found["rights"]["outcome"] == "failed"
    assert "patch sn17miners" in found["rights"]["said"]
    # What it may not see is unknown, not fine.
    assert found["definition"]["outcome"] == "unknown"
    doctor.carry_out(found["rights"])
    wait_for("the rights", lambda: asked()["rights"]["outcome"] == "ok")


def test_an_operator_without_its_role_has_its_rights_after_the_remedy(doctor: Doctor) -> None:
    doctor.cluster.kubectl("delete", "rolebinding", "sn17-operator", "-n", doctor.namespace)
    wait_for("the loss", lambda: doctor.one("rights")["outcome"] == "failed")
    found = doctor.one("rights")
    assert "the operator (sn17-operator) may not" in found["said"]
    doctor.carry_out(found)
    wait_for("the rights", lambda: doctor.one("rights")["outcome"] == "ok")


@pytest.mark.parametrize("fault", ["older", "absent"])
def test_a_definition_of_another_version_is_renewed_by_the_remedy(doctor: Doctor, fault: str) -> None:
    definition = yaml.safe_load(CRD.read_text())
    name = definition["metadata"]["name"]
    try:
        if fault == "absent":
            doctor.cluster.kubectl("delete", "crd", name, "--timeout=60s")
            word = "has no"
        else:
            schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            spec = schema["properties"]["spec"]
            gone = sorted(set(spec["properties"]) - set(spec.get("required", ())))[0]
            del spec["properties"][gone]
            doctor.cluster.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(definition))
            word = f"lacks spec.{gone}"
        found = doctor.one("definition")
        assert found["outcome"] == "failed"
        assert word in found["said"]
        doctor.carry_out(found)
        wait_for("the definition", lambda: doctor.one("definition")["outcome"] == "ok")
    finally:
        doctor.cluster.apply(CRD.read_text())
        doctor.cluster.wait_established(name)


def test_a_missing_hotkey_is_there_after_the_remedy(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor.one("hotkey Secret")
    assert found["outcome"] == "failed"
    assert "sn17-hotkey" in found["said"]
    home = tmp_path / "home"
    key = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
    write_hotkey(home / ".bittensor/wallets/default/hotkeys/default", key)
    doctor.carry_out(found, HOME=str(home))
    found = doctor.one("hotkey Secret")
    assert (found["outcome"], key.ss58_address in found["said"]) == ("ok", True)


def test_a_secret_that_holds_no_hotkey_is_said_without_its_content(doctor: Doctor) -> None:
    doctor.cluster.kubectl(
        "create", "secret", "generic", "sn17-hotkey", "-n", doctor.namespace, "--from-literal=hotkey=s3cret"
    )
    found = doctor.one("hotkey Secret")
    assert found["outcome"] == "failed"
    assert "key hotkey is not a JSON key file" in found["said"]
    assert "s3cret" not in json.dumps(found)
    assert "/tmp" not in found["said"]


def deny_all(name: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def upgrade(doctor: Doctor, *values: str) -> None:
    argv = ["upgrade", "sn17", str(CHART), "-n", doctor.namespace, "--reuse-values"]
    doctor.cluster.helm(*argv, *(part for value in values for part in ("--set", value)))


def test_a_deny_all_of_the_namespace_is_opened_by_the_chart_s_own_policies(doctor: Doctor) -> None:
    upgrade(doctor, "networkPolicy.enabled=false")
    assert doctor.one("network policies")["outcome"] == "warning"
    doctor.cluster.apply(deny_all("closed"), namespace=doctor.namespace)
    found = doctor.one("network policies")
    assert found["outcome"] == "failed"
    assert "closed closes" in found["said"]
    assert "miner to trellis:10006" in found["said"]
    doctor.carry_out(found)
    assert doctor.one("network policies")["outcome"] == "ok"


def test_an_api_server_at_a_port_that_the_values_leave_out_is_said(doctor: Doctor) -> None:
    upgrade(doctor, "networkPolicy.apiServer.ports={9}")
    found = doctor.one("network policies")
    assert found["outcome"] == "failed"
    assert "operator to API server" in found["said"]
    assert "apiServer.ports" in found["remedy"]


class SmallRegistry:
    """The distribution protocol's manifests, with a login by token where a repository asks for one."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.private: set[str] = set()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                repository, _, tag = self.path.removeprefix("/v2/").partition("/manifests/")
                if repository in registry.private and self.headers.get("authorization") != "Bearer t0ken":
                    challenge = (
                        f'Bearer realm="{registry.url}/token",service="small",scope="repository:x:pull"'
                    )
                    self._say(401, {"www-authenticate": challenge})
                elif (repository, tag) in registry.manifests:
                    self._say(200, {})
                else:
                    self._say(404, {})

            def do_GET(self) -> None:
                login = "Basic " + base64.b64encode(b"me:pw").decode()
                if self.headers.get("authorization") == login:
                    self._say(200, {}, b'{"token": "t0ken"}')
                else:
                    self._say(401, {})

            def do_PUT(self) -> None:
                repository, _, tag = self.path.removeprefix("/v2/").partition("/manifests/")
                length = int(self.headers["content-length"])
                registry.manifests[(repository, tag)] = self.rfile.read(length)
                self._say(201, {})

            def _say(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    made = SmallRegistry()
    yield made
    made.close()


def use_registry(doctor: Doctor, host: str) -> None:
    upgrade(
        doctor,
        f"image.registry={host}",
        "image.preloaded=false",
        f"prometheus.image.repository={host}/prometheus",
        "image.pullSecrets={sn17-pull}",
    )


def test_images_that_nobody_pushed_are_named_and_pullable_after_the_push(
    doctor: Doctor, registry: SmallRegistry
) -> None:
    use_registry(doctor, registry.host)
    found = doctor.one("images")
    assert found["outcome"] == "failed"
    assert f"{registry.host}/sn17/miner:" in found["said"]
    # Pushing takes the image itself; here a script takes docker's place and pushes its manifest.
    docker = doctor.folder / "docker"
    docker.mkdir()
    (docker / "docker").write_text(
        '#!/bin/bash\nset -e\n[ "$1" = push ]\nhost=${2%%/*}; rest=${2#*/}\n'
        'curl -sSf --noproxy "*" -X PUT -d "{}" "http://$host/v2/${rest%:*}/manifests/${rest##*:}"\n'
    )
    (docker / "docker").chmod(0o755)
    doctor.carry_out(found, PATH=f"{docker}:{doctor.env['PATH']}")
    assert doctor.one("images")["outcome"] == "ok"


def test_a_registry_that_asks_for_a_login_is_answered_with_the_pull_secret(
    doctor: Doctor, registry: SmallRegistry
) -> None:
    use_registry(doctor, registry.host)
    ours = ("miner", "fixer", "trellis", "operator", "gateway")
    registry.private.update({"prometheus", *(f"sn17/{name}" for name in ours)})
    found = doctor.one("images")
    assert found["outcome"] == "failed"
    assert "asks for a login" in found["said"]
    command = found["command"].replace("USER", "me").replace("PASSWORD", "pw")
    doctor.carry_out({**found, "command": command})
    # With the login the registry tells what it has: nothing yet.
    assert "not in the registry" in doctor.one("images")["said"]


def test_a_silent_registry_is_unknown_unless_a_node_has_the_image(doctor: Doctor) -> None:
    use_registry(doctor, f"127.0.0.1:{free_port()}")
    assert doctor.one("images")["outcome"] == "unknown"


def test_images_loaded_by_hand_are_unknown_until_a_node_runs_them(doctor: Doctor) -> None:
    found = doctor.one("images")
    assert found["outcome"] == "unknown"
    assert "sn17/miner:" in found["said"]


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("127.0.0.1", free_port())
    made.start()
    yield made
    made.stop()


def running_pod(doctor: Doctor) -> Mapping[str, Any]:
    """A worker's pod of the release, as kubelet would report it once it runs."""
    found = doctor.cluster.get(
        "pod", namespace=doctor.namespace, selector="app.kubernetes.io/component=trellis"
    )
    for pod in found:
        status = {
            "phase": "Running",
            "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")],
        }
        doctor.cluster.kubectl(
            "patch", "pod", pod["metadata"]["name"], "-n", doctor.namespace, "--subresource=status",
            "--type=merge", "-p", json.dumps({"status": status}),
        )  # fmt: skip
    return found[0]


def test_a_prometheus_without_the_operator_s_labels_is_said_and_fine_with_the_rules_of_the_remedy(
    doctor: Doctor, prometheus: Prometheus, worker: Worker
) -> None:
    upgrade(doctor, "trellis.replicas=1")
    pods: Callable[[], list[Any]] = lambda: doctor.cluster.get(  # noqa: E731
        "pod", namespace=doctor.namespace, selector="app.kubernetes.io/component=trellis"
    )
    wait_for("one worker", lambda: len(pods()) == 1)
    pod = running_pod(doctor)
    target = f"{worker.address}:{worker.port}"
    args = ("--prometheus", prometheus.url)
    assert "does not scrape" in doctor.one("Prometheus", *args)["said"]
    job = {"job": "trellis", "pod": pod["metadata"]["name"]}
    prometheus.scrape([(target, job)])
    wait_for("a scrape", lambda: "without what" in doctor.one("Prometheus", *args)["said"])
    found = doctor.one("Prometheus", *args)
    assert found["outcome"] == "failed"
    # What service discovery would put in the place of each source label of the advised rules.
    meta = {
        "__meta_kubernetes_pod_uid": pod["metadata"]["uid"],
        "__meta_kubernetes_namespace": doctor.namespace,
        "__meta_kubernetes_pod_label_app_kubernetes_io_instance": "sn17",
    }
    rules = yaml.safe_load(found["remedy"].partition("relabel_configs: ")[2])
    given = {rule["target_label"]: meta[rule["source_labels"][0]] for rule in rules}
    prometheus.scrape([(target, job | given)])
    wait_for("the labels", lambda: doctor.one("Prometheus", *args)["outcome"] == "ok")
    worker.answers = False
    wait_for("a failed scrape", lambda: "gets no answer" in doctor.one("Prometheus", *args)["said"])


def test_a_prometheus_that_is_not_there_is_unknown(doctor: Doctor) -> None:
    running_pod(doctor)
    assert doctor.one("Prometheus", "--prometheus", f"http://127.0.0.1:{free_port()}")["outcome"] == "unknown"
    assert doctor.one("Prometheus")["outcome"] == "unknown"


def test_workers_without_a_node_or_a_model_are_said(doctor: Doctor) -> None:
    wait_for("the scheduler", lambda: doctor.one("nodes")["outcome"] == "failed")
    assert "no nodes available" in doctor.one("nodes")["said"]
    assert doctor.one("model of workers")["outcome"] == "unknown"
    pod = running_pod(doctor)
    words = "ModelMissing: a/b lacks pipeline.json"
    status = {
        "containerStatuses": [
            {
                "name": pod["spec"]["containers"][0]["name"], "image": "x", "imageID": "", "ready": False,
                "restartCount": 1, "state": {"terminated": {"exitCode": 1, "message": words}},
            }
        ]
    }  # fmt: skip
    doctor.cluster.kubectl(
        "patch", "pod", pod["metadata"]["name"], "-n", doctor.namespace, "--subresource=status",
        "--type=merge", "-p", json.dumps({"status": status}),
    )  # fmt: skip
    found = doctor.one("model of workers")
    assert found["outcome"] == "failed"
    assert "a/b lacks pipeline.json" in found["said"]


def test_a_release_or_a_cluster_that_is_not_there_is_unknown_and_never_a_traceback(doctor: Doctor) -> None:
    found = doctor.one("images", release="other")
    assert found["outcome"] == "unknown"
    assert "there is no release other" in found["said"]
    config = yaml.safe_load(doctor.cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    path = doctor.folder / "gone.yaml"
    path.write_text(yaml.safe_dump(config))
    found = doctor("--kubeconfig", str(path))
    assert {found[name]["outcome"] for name in ("rights", "definition", "images")} == {"unknown"}


def test_a_clock_that_is_far_off_the_cluster_s_is_said(doctor: Doctor) -> None:
    import sn17_chaos

    clock = Path(sn17_chaos.__file__).parent / "clock"
    (doctor.folder / "offset").write_text("30")
    env = {"PYTHONPATH": str(clock), "CHAOS_CLOCK_FILE": str(doctor.folder / "offset")}
    found = doctor.one("clock of cluster", env=env)
    assert found["outcome"] == "failed"
    assert "ahead of the API server's clock" in found["said"]
