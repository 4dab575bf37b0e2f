"""The chart on a real API server: objects valid, pods admitted, state kept by upgrades and roll-backs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_cases import PRELOADED, scaled_objects
from sn17.cluster.access import Access, ClusterError
from sn17.cluster.release import Release
from sn17_cluster.client import Cluster, CommandError
from sn17_cluster.stack import wait_until

pytestmark = pytest.mark.cluster
CHART = Path(__file__).resolve().parents[2] / "charts" / "sn17"
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


@pytest.fixture(scope="module")
def cluster(api: Cluster) -> Cluster:
    """The API server with the chart's CRD."""
    for crd in sorted((CHART / "crds").glob("*.yaml")):
        api.apply(crd.read_text())
    api.apply(scaled_objects())
    for name in ("sn17miners.sn17.io", "scaledobjects.keda.sh"):
        api.wait_established(name)
    return api


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces the restricted Pod Security standard."""
    with cluster.namespace("chart", RESTRICTED) as name:
        yield name


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON schemas of every kind this API server knows, strict: a field it would drop is an error."""
    folder = tmp_path_factory.mktemp("schemas")
    for path in _published(cluster, "apis/sn17.io/v1alpha1"):
        if not path.startswith(("api/", "apis/")) or path.count("/") < 1:
            continue
        document = json.loads(cluster.kubectl("get", "--raw", f"/openapi/v3/{path}"))
        definitions = {k: _strict(v) for k, v in document.get("components", {}).get("schemas", {}).items()}
        for name, definition in definitions.items():
            for kind in definition.get("x-kubernetes-group-version-kind", []):
                text = json.dumps({"$ref": f"#/definitions/{name}", "definitions": definitions})
                # kubeconform takes the first part of the apiVersion for the group: `v1` for the core's kinds.
                group = kind["group"] or kind["version"]
                target = folder / f"{group}_{kind['version']}_{kind['kind'].lower()}.json"
                target.write_text(text.replace("#/components/schemas/", "#/definitions/"))
    return folder


def _published(cluster: Cluster, wanted: str) -> list[str]:
    """Paths of the server's OpenAPI documents; a custom kind's follows its CRD a moment later."""
    for _ in range(100):
        paths: list[str] = list(json.loads(cluster.kubectl("get", "--raw", "/openapi/v3"))["paths"])
        if wanted in paths:
            return paths
    pytest.fail(f"the API server does not publish {wanted}")


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A `default` in a definition would hide a missing value, and a $ref may have no neighbours in draft 7.
    result = {key: _strict(value) for key, value in schema.items() if key != "default"}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    if len(schema.get("allOf", [])) == 1:
        return result["allOf"][0]
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        result["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return result


def test_every_object_is_valid_to_the_servers_own_schema(
    chart: Any, schemas: Path, arguments: Mapping[str, tuple[str, ...]], variant: str
) -> None:
    text = chart.text(*arguments[variant])
    names = "{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}"
    location = f"{schemas}/{names}.json"
    out = chart.run(
        "kubeconform",
        "-schema-location",
        location,
        "-skip=PodMonitor,PrometheusRule",  # kinds of a Prometheus operator, which is not here
        "-output=json",
        "-summary",
        "-",
        stdin=text,
    )
    summary = json.loads(out)["summary"]
    assert summary["valid"] > 20
    assert summary["invalid"] == summary["errors"] == 0


def test_the_schemas_are_strict(chart: Any, schemas: Path) -> None:
    location = f"{schemas}/v1_v1_service.json"
    wrong = yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"publishNotReady": True}}
    )
    with pytest.raises(Exception, match="publishNotReady"):
        chart.run("kubeconform", "-schema-location", location, "-", stdin=wrong)


@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_installs_with_every_pod_admitted(
    cluster: Cluster, namespace: str, preset: str, tool: str, arguments: Mapping[str, tuple[str, ...]]
) -> None:
    """A plain install without hotkey, GPU or model is among them: nothing fails, pods wait."""
    out = cluster.helm("install", "sn17", str(CHART), "-n", namespace, *arguments[preset], tool=tool)
    assert "STATUS: deployed" in out
    wanted = {
        (kind, o["metadata"]["name"], o["spec"].get("replicas", 1))
        for kind in ("deployments", "statefulsets")
        for o in cluster.get(kind, namespace=namespace)
    }
    for kind, name, replicas in wanted:
        # Pods of a bare control plane stay Pending, but each must be created: admission refuses none.
        path = "{.status.replicas}"
        cluster.kubectl(
            "wait", f"--for=jsonpath={path}={replicas}", f"{kind}/{name}", "-n", namespace, "--timeout=30s"
        )
    forbidden = [
        e["message"] for e in cluster.get("events", namespace=namespace) if "forbidden" in e["message"]
    ]
    assert not forbidden
    assert (
        cluster.get("sn17miners", "sn17", namespace=namespace)["spec"]["targetRef"]["name"] == "sn17-trellis"
    )


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_every_toggle_installs(
    cluster: Cluster, namespace: str, variant: str, tool: str, arguments: Mapping[str, tuple[str, ...]]
) -> None:
    wanted = [a for a in arguments[variant] if not a.startswith("--api-versions")]
    assert "STATUS: deployed" in cluster.helm(
        "install", "sn17", str(CHART), "-n", namespace, *PRELOADED, *wanted, tool=tool
    )


def test_notes_name_what_is_missing_and_how_to_mend_it(cluster: Cluster, namespace: str) -> None:
    out = cluster.helm("install", "sn17", str(CHART), "-n", namespace, *PRELOADED)
    assert "sn17 wallet secret" in out
    assert "trellis.model.revision=COMMIT-OF-TRELLIS-text-xlarge" in out
    cluster.kubectl("create", "secret", "generic", "sn17-hotkey", "--from-literal=hotkey={}", "-n", namespace)
    out = cluster.helm(
        "upgrade", "sn17", str(CHART), "-n", namespace, *PRELOADED, "--set", "trellis.model.existingClaim=w"
    )
    assert "Still missing" not in out


def test_a_larger_journal_is_told_how_and_does_not_break_the_upgrade(
    cluster: Cluster, namespace: str
) -> None:
    release = ("sn17", str(CHART), "-n", namespace, *PRELOADED)
    cluster.helm("install", *release, "--set", "miner.persistence.size=1Gi")
    out = cluster.helm("upgrade", *release, "--set", "miner.persistence.size=7Gi")
    found = cluster.get("statefulset", "sn17-miner", namespace=namespace)["spec"]["volumeClaimTemplates"]
    assert found[0]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert "patch pvc state-sn17-miner-0" in out
    assert '"storage":"7Gi"' in out


@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_upgrade_and_rollback_keep_what_must_be_kept(cluster: Cluster, namespace: str, tool: str) -> None:
    def token() -> str:
        secret = cluster.get("secret", "sn17-admin-token", namespace=namespace)
        return base64.b64decode(secret["data"]["token"]).decode()

    def limit() -> str:
        deployment = cluster.get("deployment", "sn17-trellis", namespace=namespace)
        text: str = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        return text

    release = ("sn17", str(CHART), "-n", namespace, *PRELOADED)
    cluster.helm("install", *release, tool=tool)
    first = token()
    assert len(first) >= 32
    claim = cluster.get("pvc", "state-sn17-miner-0", namespace=namespace)["metadata"]["uid"]
    cluster.kubectl("annotate", "sn17miner", "sn17", "sn17.io/paused=by hand", "-n", namespace)

    cluster.helm("upgrade", *release, "--set", "trellis.memory.limit=14Gi,trellis.replicas=2", tool=tool)
    assert (limit(), token()) == ("14Gi", first)

    cluster.helm("rollback", "sn17", "1", "-n", namespace, tool=tool)
    assert (limit(), token()) == ("12Gi", first)
    assert cluster.get("pvc", "state-sn17-miner-0", namespace=namespace)["metadata"]["uid"] == claim
    miner = cluster.get("sn17miner", "sn17", namespace=namespace)
    assert miner["metadata"]["annotations"]["sn17.io/paused"] == "by hand"

    cluster.helm("uninstall", "sn17", "-n", namespace, tool=tool)
    left = {c["metadata"]["name"] for c in cluster.get("pvc", namespace=namespace)}
    assert left == {"state-sn17-miner-0", "sn17-models"}


def test_an_upgrade_that_changes_nothing_restarts_nothing(cluster: Cluster, namespace: str) -> None:
    def generations() -> dict[str, int]:
        kinds = ("deployments", "statefulsets")
        objects = [o for kind in kinds for o in cluster.get(kind, namespace=namespace)]
        return {o["metadata"]["name"]: o["metadata"]["generation"] for o in objects}

    release = ("sn17", str(CHART), "-n", namespace, *PRELOADED)
    cluster.helm("install", *release)
    before = generations()
    cluster.helm("upgrade", *release)
    assert generations() == before


def test_two_releases_in_two_namespaces_side_by_side(cluster: Cluster) -> None:
    with cluster.namespace("one", RESTRICTED) as one, cluster.namespace("two", RESTRICTED) as two:
        for namespace in (one, two):
            cluster.helm(
                "install",
                "sn17",
                str(CHART),
                "-n",
                namespace,
                *PRELOADED,
                "--set",
                "crds.upgrade.enabled=true",
            )
        cluster.helm("uninstall", "sn17", "-n", one)
        assert cluster.get("deployment", "sn17-trellis", namespace=two)
        assert cluster.get("sn17miner", "sn17", namespace=two)


def test_monitoring_objects_come_when_their_kinds_are_there(cluster: Cluster, namespace: str) -> None:
    kinds = {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    for plural, kind in kinds.items():
        cluster.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.monitoring.coreos.com"},
                "spec": {
                    "group": "monitoring.coreos.com",
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural},
                    "versions": [version],
                },
            }
        )
    names = [f"{plural}.monitoring.coreos.com" for plural in kinds]
    try:
        cluster.wait_established(*names)
        # The bundled Prometheus brings its rules along: a second copy would send every alert twice.
        outside = ("--set", "prometheus.url=http://prometheus.monitoring:9090")
        cluster.helm("install", "sn17", str(CHART), "-n", namespace, *PRELOADED, *outside)
        assert cluster.get("podmonitors", "sn17", namespace=namespace)
        assert cluster.get("prometheusrules", "sn17", namespace=namespace)["spec"]["groups"]
        cluster.helm("uninstall", "sn17", "-n", namespace)
    finally:
        cluster.kubectl("delete", "crd", *names)


def test_the_command_line_finds_its_way_in(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `sn17 accept --release` and `sn17 watch --release` read, up to the port-forward itself."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    release = Release("sn17", Access(namespace=namespace), cluster.tools["kubectl"])
    with pytest.raises(ClusterError, match="helm list -A"):
        release.acceptance()
    named = "acceptance.gaussiansMean=1,fullnameOverride=other"
    cluster.helm("install", "sn17", str(CHART), "-n", namespace, *PRELOADED, "--set", named)
    assert release.acceptance()["gaussians_mean"] == 1
    secret = cluster.get("secret", "other-admin-token", namespace=namespace)
    assert release.admin_token() == base64.b64decode(secret["data"]["token"]).decode()
    with pytest.raises(ClusterError, match="no running miner pod"):
        release.pods("miner")


def can(cluster: Cluster, account: str, verb: str, what: str, namespace: str) -> bool:
    who = f"--as=system:serviceaccount:{account}"
    resource, _, subresource = what.partition(":")
    argv = [cluster.tools["kubectl"], "auth", "can-i", verb, resource, "-n", namespace, who]
    argv += [f"--subresource={subresource}"] if subresource else []
    return cluster.run(argv, check=False).stdout.strip() == "yes"


def test_the_operator_may_do_its_work_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    cluster.helm("install", "sn17", str(CHART), "-n", namespace, *PRELOADED)
    operator = f"{namespace}:sn17-operator"
    needed = [
        *((verb, "sn17miners.sn17.io") for verb in ("get", "list", "watch")),
        *((verb, "sn17miners.sn17.io:status") for verb in ("get", "patch")),
        *((verb, "pods") for verb in ("get", "list", "watch", "patch")),
        ("create", "pods:eviction"),
        *((verb, "events") for verb in ("list", "create")),
        ("get", "deployments.apps"),
        ("create", "leases.coordination.k8s.io"),
        ("get", "leases.coordination.k8s.io/sn17-operator"),
        ("update", "leases.coordination.k8s.io/sn17-operator"),
    ]
    assert not [(verb, what) for verb, what in needed if not can(cluster, operator, verb, what, namespace)]
    too_much = [
        ("get", "secrets"),
        ("delete", "pods"),
        ("create", "pods"),
        ("create", "pods:exec"),
        ("patch", "deployments.apps"),
        ("update", "leases.coordination.k8s.io/another"),
        ("patch", "sn17miners.sn17.io"),
    ]
    assert not [(verb, what) for verb, what in too_much if can(cluster, operator, verb, what, namespace)]
    assert not can(cluster, operator, "list", "pods", "default")


@pytest.mark.parametrize("component", ["trellis", "miner", "fixer", "grafana"])
def test_the_others_may_do_nothing(cluster: Cluster, namespace: str, component: str) -> None:
    cluster.helm("install", "sn17", str(CHART), "-n", namespace, *PRELOADED)
    account = f"{namespace}:sn17-{component}"
    assert not can(cluster, account, "get", "pods", namespace)
    assert not can(cluster, account, "get", "secrets", namespace)


def test_the_budget_holds_healthy_workers_and_lets_sick_ones_go(cluster: Cluster, namespace: str) -> None:
    cluster.helm("install", "sn17", str(CHART), "-n", namespace, *PRELOADED, "--set", "trellis.replicas=2")
    cluster.kubectl(
        "wait",
        "--for=jsonpath={.status.replicas}=2",
        "deployment/sn17-trellis",
        "-n",
        namespace,
        "--timeout=30s",
    )
    pods = cluster.get("pods", namespace=namespace, selector="app.kubernetes.io/component=trellis")
    names = [p["metadata"]["name"] for p in pods]
    # One worker is sick (never ready), so the budget has no room for another, yet the sick one itself may go.
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    patch = json.dumps({"status": running})
    cluster.kubectl("patch", "pod", names[0], "--subresource=status", "-p", patch, "-n", namespace)
    cluster.kubectl(
        "wait",
        "--for=jsonpath={.status.currentHealthy}=1",
        "pdb/sn17-trellis",
        "-n",
        namespace,
        "--timeout=30s",
    )

    def evict(name: str) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    with pytest.raises(CommandError, match="disruption budget"):
        evict(names[0])
    evict(names[1])


def test_the_crd_hook_may_change_this_crd_and_no_other(
    cluster: Cluster, rendered: Callable[[str], Any]
) -> None:
    release = rendered("crd-upgrade")
    role = next(iter(release.of("ClusterRole")))
    account = "mining:sn17-crd-upgrade"
    cluster.apply(role, next(iter(release.of("ClusterRoleBinding"))))
    try:
        crd = next(iter(release.one("ConfigMap", "sn17-crd-upgrade")["data"].values()))
        assert crd == next((CHART / "crds").glob("*.yaml")).read_text()
        job = release.one("Job", "sn17-crd-upgrade")["spec"]["template"]["spec"]["containers"][0]["args"]
        args = [*job[:-1], "-f", "-", f"--as=system:serviceaccount:{account}"]
        older = yaml.safe_load(crd)
        older["spec"]["versions"][0]["additionalPrinterColumns"].pop()
        cluster.kubectl(*args, stdin=json.dumps(older))
        # Helm 4 applies CRDs as this manager and forces nothing: a release after the hook must install.
        cluster.kubectl("apply", "--server-side", "--field-manager=helm", "-f", "-", stdin=crd)
        other = yaml.safe_load(crd)
        other["metadata"]["name"] = "others.example.com"
        with pytest.raises(CommandError, match="forbidden"):
            cluster.kubectl(*args, stdin=json.dumps(other))
    finally:
        name = role["metadata"]["name"]
        cluster.kubectl("delete", f"clusterrole/{name}", f"clusterrolebinding/{name}")


def test_admission_policies_refuse_a_second_of_what_there_must_be_one(
    cluster: Cluster, namespace: str, chart: Any
) -> None:
    release = chart.render("--set", "admissionPolicies.enabled=true", namespace=namespace)
    (workers,) = release.of("SN17Miner")
    miner = release.one("StatefulSet", "sn17-miner")
    try:
        cluster.apply(*release.of("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"))
        cluster.apply(workers, miner, namespace=namespace)
        second = {**workers, "metadata": {"name": "second"}}
        # The API server takes a new policy up within a second or so.
        wait_until("the refusal", lambda: _refused(cluster, namespace, second), timeout=60)
        assert "two would remediate" in _refused(cluster, namespace, second)
        target = {"targetRef": {"name": "of-another-release"}}
        other = {**workers, "metadata": {"name": "other"}, "spec": target}
        cluster.apply(other, namespace=namespace)
        with pytest.raises(CommandError, match="one miner signs with one hotkey"):
            cluster.kubectl("scale", "statefulset/sn17-miner", "--replicas=2", "-n", namespace)
        cluster.kubectl("scale", "statefulset/sn17-miner", "--replicas=0", "-n", namespace)
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.kubectl("delete", kind, "-l", "app.kubernetes.io/instance=sn17")


def _refused(cluster: Cluster, namespace: str, manifest: Mapping[str, Any]) -> str:
    """Why the API server refuses it; empty where it does not."""
    try:
        cluster.apply(manifest, namespace=namespace)
    except CommandError as error:
        return str(error)
    return ""
