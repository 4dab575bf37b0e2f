"""No privilege, no token and no secret where none is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from sn17.doctor.release.access import Right, needed_by_operator

pytestmark = pytest.mark.cluster

TALK_TO_THE_API = {"operator", "prometheus", "crd-upgrade"}


def containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def secrets(pod: Mapping[str, Any]) -> set[str]:
    return {v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v}


def test_every_pod_meets_the_restricted_standard(rendered: Callable[[str], Any], variant: str) -> None:
    for component, pod in rendered(variant).pods():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, component
        assert context["runAsUser"] > 0, component
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, component
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"]), component
        assert not [v for v in pod["spec"]["volumes"] if "hostPath" in v], component
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, component
            assert own["readOnlyRootFilesystem"] is True, component
            assert own["capabilities"] == {"drop": ["ALL"]}, component
            assert not [p for p in container.get("ports", []) if "hostPort" in p], component


def test_only_who_talks_to_the_api_server_holds_a_token(rendered: Callable[[str], Any], variant: str) -> None:
    release = rendered(variant)
    for component, pod in release.pods():
        assert pod["spec"]["automountServiceAccountToken"] is (component in TALK_TO_THE_API), component
        assert pod["spec"]["serviceAccountName"] != "default", component
    assert all(account["automountServiceAccountToken"] is False for account in release.of("ServiceAccount"))


def test_rights_end_at_the_namespace_and_touch_no_secret(
    rendered: Callable[[str], Any], variant: str
) -> None:
    release = rendered(variant)
    cluster_wide = {o["metadata"]["name"] for o in release.of("ClusterRole", "ClusterRoleBinding")}
    expected = {
        "crd-upgrade": {"mining-sn17-crd-upgrade"},
        "aggregated": {f"mining-sn17-sn17miners-{role}" for role in ("view", "edit")},
    }
    assert cluster_wide == expected.get(variant, set())
    for role in release.of("Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], role["metadata"]["name"]
            assert not {"secrets", "pods/exec", "nodes"} & set(rule["resources"])
            assert "deployments/scale" not in rule["resources"] or "autoscaling" in variant
            assert not {"delete", "deletecollection", "escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_view_and_edit_may_see_and_steer_the_resource_where_that_is_wanted(
    rendered: Callable[[str], Any],
) -> None:
    release = rendered("aggregated")
    assert not release.of("ClusterRoleBinding")
    rights = {role: release.one("ClusterRole", f"mining-sn17-sn17miners-{role}") for role in ("view", "edit")}
    for role, found in rights.items():
        labels = {k: v for k, v in found["metadata"]["labels"].items() if "aggregate" in k}
        assert labels == {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true"}
    (view,), (edit,) = rights["view"]["rules"], rights["edit"]["rules"]
    assert (view["resources"], view["verbs"]) == (["sn17miners"], ["get", "list", "watch"])
    assert edit["verbs"] == ["patch", "update"]


def test_doctor_asks_for_just_what_the_role_gives(rendered: Callable[[str], Any]) -> None:
    """What an option adds (autoscaling, NVSentinel) is not asked for."""
    role = rendered("default").one("Role", "sn17-operator")
    given = [
        Right(verb, resource, group, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    ]
    assert sorted(given) == sorted(needed_by_operator("sn17-operator"))


def test_the_hotkey_is_in_the_miner_alone(rendered: Callable[[str], Any], variant: str) -> None:
    release = rendered(variant)
    for component, pod in release.pods():
        named = {name for name in secrets(pod) if "hotkey" in name or name == "key"}
        assert bool(named) is (component == "miner"), component
    if variant != "no-miner":
        (hotkey,) = [v for v in release.pod("miner")["spec"]["volumes"] if v["name"] == "hotkey"]
        assert hotkey["secret"]["defaultMode"] == 0o400
        assert len(hotkey["secret"]["items"]) == 1  # a coldkey beside it in the Secret is never mounted


def test_the_admin_token_goes_only_where_admin_routes_are(
    rendered: Callable[[str], Any], variant: str
) -> None:
    for component, pod in rendered(variant).pods():
        names = {name for name in secrets(pod) if "admin-token" in name or name == "mine"}
        # The gateway's page reads the miner's ops port, where it reads the miner at all.
        settings = {each["name"] for c in pod["spec"]["containers"] for each in c.get("env", ())}
        reads = component == "gateway" and "SN17_MINER_TOKEN_FILE" in settings
        assert bool(names) is (reads or component in {"trellis", "miner", "operator"}), component


def test_no_secret_stands_in_an_environment(rendered: Callable[[str], Any], variant: str) -> None:
    for component, pod in rendered(variant).pods():
        for container in containers(pod):
            assert not container.get("envFrom"), component
            for entry in container.get("env", []):
                assert "secretKeyRef" not in entry.get("valueFrom", {}), (component, entry["name"])


def test_memory_is_limited_everywhere_and_no_volume_eats_it(
    rendered: Callable[[str], Any], variant: str
) -> None:
    for component, pod in rendered(variant).pods():
        for container in containers(pod):
            assert container["resources"]["limits"]["memory"], component
            assert container["resources"]["requests"]["cpu"], component
        for volume in pod["spec"]["volumes"]:
            if (directory := volume.get("emptyDir")) is not None:
                assert "medium" not in directory, (component, volume["name"])
                assert directory["sizeLimit"], (component, volume["name"])


def test_images_are_pinned(rendered: Callable[[str], Any], variant: str) -> None:
    for component, pod in rendered(variant).pods():
        for container in containers(pod):
            tag = container["image"].rpartition("/")[2]
            assert ":" in tag or "@" in tag, component
            assert not tag.endswith(":latest"), component


def test_a_worker_has_time_to_finish_its_job(rendered: Callable[[str], Any], variant: str) -> None:
    pod = rendered(variant).pod("trellis")
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    settings = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert int(settings["SN17_GRACE_SECONDS"]) < grace
    assert grace >= 60


def test_probes_tolerate_a_model_load_and_a_compile_pause(rendered: Callable[[str], Any]) -> None:
    (container,) = rendered("default").pod("trellis")["spec"]["containers"]
    start, live = container["startupProbe"], container["livenessProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 1800
    assert live["periodSeconds"] * live["failureThreshold"] >= 180
    assert live["httpGet"] == {"path": "/health", "port": "ops"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "ops"}


def test_sick_pods_can_always_be_evicted(rendered: Callable[[str], Any]) -> None:
    budgets = rendered("default").of("PodDisruptionBudget")
    assert {b["metadata"]["name"] for b in budgets} == {"sn17-trellis", "sn17-fixer", "sn17-miner"}
    assert all(b["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" for b in budgets)
    assert all(b["spec"]["maxUnavailable"] == 1 for b in budgets)


def test_what_must_outlive_a_release_is_kept(rendered: Callable[[str], Any]) -> None:
    release = rendered("default")
    miner = release.one("StatefulSet", "sn17-miner")["spec"]
    assert miner["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = release.one("PersistentVolumeClaim", "sn17-models")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_user_namespaces_are_for_pods_without_a_gpu(rendered: Callable[[str], Any]) -> None:
    hosts = {component: pod["spec"].get("hostUsers") for component, pod in rendered("hardened").pods()}
    assert hosts.pop("trellis") is None
    assert set(hosts.values()) == {False}
