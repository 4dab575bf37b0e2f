"""What each pod may do and read, tried with its own token and looked for in its own file system."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sn17_chaos.cluster_bed import Bed
from sn17_chaos.cluster_world import ClusterWorld
from sn17_cluster.client import CommandError
from sn17_contract.http import OPS_PORT
from sn17_http import own_client

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.node,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

PERMISSIONS = Path(__file__).parent / "permissions.json"
COMPONENTS = ("fixer", "miner", "operator", "prometheus", "trellis", "validators")
ADMIN = ("drain", "resume", "cleanup", "canary", "exit")
WITHOUT_ADMIN = ("fixer", "validators")
"""They are given no admin token, which turns the routes off for whatever token is shown."""
SECRET_FILES_UP_TO = 64 * 1024
TOKEN = "secrets/kubernetes.io/serviceaccount/token"
ENFORCE = "pod-security.kubernetes.io/enforce"


def component(pod: Any) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def pods(world: ClusterWorld) -> list[Any]:
    return [pod for name in COMPONENTS for pod in world.pods(name)]


def own_tokens(bed: Bed, pod: Any) -> list[str]:
    """Service-account tokens in the file systems of a pod's containers."""
    roots = [
        Path(f"/proc/{bed.pids(pod, container['name'])[0]}/root") for container in pod["spec"]["containers"]
    ]
    # /var/run may be a link to /run, which would lead out of the container from here.
    found = [root / run / TOKEN for root in roots for run in ("run", "var/run")]
    return [path.read_text() for path in found if not path.parents[3].is_symlink() and path.exists()]


def rules(bed: Bed, token: str, namespace: str) -> list[str]:
    """What `kubectl auth can-i --list` says to the bearer of a token, one line per rule and resource."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    with own_client(verify=bed.api.context, base_url=bed.api.server) as client:
        answer = client.post(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json=review,
            headers={"authorization": f"Bearer {token}"},
        )
    status = answer.raise_for_status().json()["status"]
    assert not status["incomplete"]
    lines = set()
    for rule in status["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                names = f" {','.join(rule['resourceNames'])}" if rule.get("resourceNames") else ""
                path = f"{group}/{resource}" if group else resource
                lines.add(f"{path}{names}: {' '.join(sorted(rule['verbs']))}")
    for rule in status["nonResourceRules"]:
        lines |= {f"{url}: {' '.join(sorted(rule['verbs']))}" for url in rule["nonResourceURLs"]}
    return sorted(lines)


def test_every_pods_account_may_do_what_the_table_says_and_no_more(world: ClusterWorld) -> None:
    bed, namespace = world.bed, world.stack.namespace
    nobody = bed.cluster.kubectl("create", "token", "default", "-n", namespace).strip()
    everyone = rules(bed, nobody, namespace)
    found: dict[str, list[str] | None] = {"everyone": everyone}
    for pod in pods(world):
        tokens = own_tokens(bed, pod)
        own = [line for token in tokens for line in rules(bed, token, namespace) if line not in everyone]
        found[component(pod)] = own if tokens else None
    if os.environ.get("SN17_UPDATE_GOLDEN") == "1":
        PERMISSIONS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(PERMISSIONS.read_text())


def files_of(bed: Bed, pod: Any, container: str) -> Iterator[tuple[str, bytes]]:
    """Small files, and the environment, of a running container, its own and those mounted into it."""
    pid = bed.pids(pod, container)[0]
    yield "environment", Path(f"/proc/{pid}/environ").read_bytes()
    root = Path(f"/proc/{pid}/root")
    for top in sorted(root.iterdir()):
        if top.name in ("proc", "sys", "dev") or top.is_symlink():
            continue
        for path in [top, *top.rglob("*")]:
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= SECRET_FILES_UP_TO:
                yield str(path.relative_to(root)), path.read_bytes()


def test_the_hotkey_is_in_the_miners_pod_and_nowhere_else(world: ClusterWorld) -> None:
    bed, namespace = world.bed, world.stack.namespace
    secret = bed.cluster.get("secret", "sn17-local-hotkey", namespace=namespace)
    hotkey = base64.b64decode(secret["data"]["hotkey"])
    seed = json.loads(hotkey)["secretSeed"].removeprefix("0x").encode()
    holders: dict[str, list[str]] = {}
    for pod in pods(world):
        for container in pod["spec"]["containers"]:
            found = [name for name, text in files_of(bed, pod, container["name"]) if seed in text]
            holders[component(pod)] = sorted({*holders.get(component(pod), []), *found})
    assert {name for name, found in holders.items() if found} == {"miner"}
    assert all(name.startswith(("run/", "var/run/")) for name in holders["miner"])
    miner = world.pod("miner")["metadata"]["name"]
    read = bed.cluster.kubectl("exec", "-n", namespace, miner, "--", "cat", "/var/run/sn17/hotkey/hotkey")
    assert read.encode() == hotkey


@pytest.mark.parametrize("given", ["nothing", "another token", "another scheme"])
def test_admin_endpoints_refuse_without_the_token(world: ClusterWorld, given: str) -> None:
    bed, namespace = world.bed, world.stack.namespace
    secret = bed.cluster.get("secret", "sn17-admin-token", namespace=namespace)
    token = base64.b64decode(secret["data"]["token"]).decode()
    headers = {
        "nothing": {},
        "another token": {"authorization": f"Bearer {secrets.token_urlsafe(32)}"},
        "another scheme": {"authorization": f"Basic {token}"},
    }[given]
    asked = 0
    for pod in pods(world):
        if component(pod) == "prometheus":
            continue
        base = f"http://{pod['status']['podIP']}:{OPS_PORT}"
        expected = 403 if component(pod) in WITHOUT_ADMIN else 401
        for verb in ADMIN:
            answer = bed.inside.request("POST", f"{base}/admin/v1/{verb}", json={}, headers=headers)
            assert answer.status_code == expected, f"{component(pod)}: {verb}: {answer.text}"
            asked += 1
    ops = world.address("miner", OPS_PORT)
    for path in ("tasks", "validators"):
        answer = bed.inside.request("GET", f"{ops}/v1/{path}", headers=headers)
        assert answer.status_code == 401
    assert asked == len(ADMIN) * (len(pods(world)) - 1)
    good = {"authorization": f"Bearer {token}"}
    assert bed.inside.request("GET", f"{ops}/v1/tasks", headers=good).status_code == 200


def test_every_pod_passes_pod_security_restricted(world: ClusterWorld) -> None:
    cluster, namespace = world.bed.cluster, world.stack.namespace
    # The release was installed where `restricted` is enforced, and all its pods are there.
    labels = cluster.get("namespace", namespace)["metadata"]["labels"]
    assert labels[ENFORCE] == "restricted"
    assert {component(pod) for pod in pods(world)} == set(COMPONENTS)
    privileged = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "privileged"},
        "spec": {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]},
    }
    with pytest.raises(CommandError, match="violates PodSecurity"):
        cluster.apply(privileged, namespace=namespace)
    # And what the server would warn of when the label came later.
    cluster.kubectl("label", "namespace", namespace, f"{ENFORCE}=privileged", "--overwrite")
    argv = [cluster.tools["kubectl"], "label", "--dry-run=server", "--overwrite", "namespace", namespace]
    answer = cluster.run([*argv, f"{ENFORCE}=restricted"])
    assert "Warning" not in answer.stderr
