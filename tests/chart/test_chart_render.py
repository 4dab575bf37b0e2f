"""The chart renders the same by Helm 3 and Helm 4, refuses mistakes, and keeps what the rooms agreed on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_cases import PRELOADED
from sn17.accept.targets import parse_targets
from sn17.accept.verdict import Criteria, Thresholds
from sn17_contract.gateway import GATEWAY_PORT
from sn17_contract.http import FIXER_PORT, OPS_PORT, TRELLIS_PORT
from sn17_contract.kubernetes import LABEL_COMPONENT

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "sn17"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def env(pod: Mapping[str, Any], container: int = 0) -> dict[str, Any]:
    return {
        e["name"]: e.get("value", e.get("valueFrom")) for e in pod["spec"]["containers"][container]["env"]
    }


@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_lints(chart: Any, preset: str, tool: str, arguments: Mapping[str, tuple[str, ...]]) -> None:
    assert "0 chart(s) failed" in chart.run(tool, "lint", "--strict", str(CHART), *arguments[preset])


def test_both_helms_render_the_same(
    chart: Any, rendered: Callable[[str], Any], arguments: Any, variant: str
) -> None:
    def known(objects: Any) -> list[Any]:
        kept = [o for o in objects if o["kind"] != "Secret"]
        return sorted(kept, key=lambda o: (o["kind"], o["metadata"]["name"]))

    assert known(chart.render(*arguments[variant], tool="helm3").objects) == known(rendered(variant).objects)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--set", "trelis.replicas=2"), "trelis"),
        (("--set", "trellis.replica=2"), "replica"),
        (("--set", "trellis.backend=cuda"), "backend"),
        (("--set", "trellis.memory.limit=lots"), "limit"),
        (("--set", "trellis.model.revision=main"), "revision"),
        (("--set", "fixer.policy=magic"), "policy"),
        (("--set", "trellis.image.digest=md5:1"), "digest"),
        (("--set", "miner.settings.SN17_X.y=1"), "SN17_X"),
        (("--set", "operator.spec.rules.gausians.minimumMean=1"), "gausians"),
        (("--set", "trellis.affinity.nodeAfinity.x=1"), "nodeAfinity"),
        (("--set", "containerSecurityContext.readOnlyRoot=true"), "readOnlyRoot"),
        (("--set-json", 'networkPolicy.metricsFrom=[{"namespace":{}}]'), "namespace"),
        (("--set", "localValidators.enabled=true"), "never stand beside the real network"),
        (("--set", "miner.chain.source=http"), "miner.chain.url is required"),
        (("-f", str(CHART / "values-single-gpu.yaml")), "the commits of the model are required"),
    ],
)
@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_refuses_with_the_key_that_is_wrong(chart: Any, wrong: tuple[str, ...], said: str, tool: str) -> None:
    with pytest.raises(Exception, match=said):
        chart.text(*wrong, tool=tool)


def test_no_object_of_the_values_takes_anything_at_all() -> None:
    def open_ones(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties", True) is True:
                yield path
            for name, value in node.items():
                yield from open_ones(value, f"{path}/{name}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    # What Helm hands down to a chart that is another one's dependency.
    assert list(open_ones(schema, "")) == ["/properties/global"]


def test_what_is_derived_from_the_values_is_current() -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "dev/tools/chart/values_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, f"{answer.stdout}run: python dev/tools/chart/values_docs.py"


def test_the_default_wall_is_12_gibibytes_and_requested_in_full(rendered: Callable[[str], Any]) -> None:
    resources = rendered("default").pod("trellis")["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == "12Gi"
    assert resources["limits"]["nvidia.com/gpu"] == 1


def test_one_value_changes_the_wall_and_every_mark_with_it(chart: Any) -> None:
    pod = chart.render("--set", "trellis.memory.limit=24Gi").pod("trellis")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "24Gi"
    assert not [name for name in env(pod) if "LIMIT" in name or "MARK" in name]  # the worker reads its cgroup


def test_an_update_never_needs_a_spare_gpu(rendered: Callable[[str], Any], variant: str) -> None:
    strategy = rendered(variant).one("Deployment", "sn17-trellis")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_two_gpus_are_one_value(chart: Any) -> None:
    one, two = chart.render(), chart.render("--set", "trellis.replicas=2")
    changed = [
        (a["kind"], a["metadata"]["name"]) for a, b in zip(one.objects, two.objects, strict=True) if a != b
    ]
    assert [c for c in changed if c[0] != "Secret"] == [("Deployment", "sn17-trellis")]


@pytest.mark.parametrize("kind", ["hostPath", "emptyDir"])
def test_workers_that_share_a_gpu_take_turns_in_one_folder(chart: Any, kind: str) -> None:
    assert "SN17_DEVICE_LOCK_DIR" not in env(chart.render().pod("trellis")), "off by default"
    pod = chart.render("--set", f"trellis.deviceLock.type={kind}").pod("trellis")
    mounts = {m["name"]: m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
    assert env(pod)["SN17_DEVICE_LOCK_DIR"] == mounts["device-lock"]
    (volume,) = (v for v in pod["spec"]["volumes"] if v["name"] == "device-lock")
    assert kind in volume


def test_ports_are_those_of_the_contract(rendered: Callable[[str], Any]) -> None:
    release = rendered("laptop")
    ports = {
        component: {p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0].get("ports", [])}
        for component, pod in release.pods()
    }
    assert ports["trellis"] == {"data": TRELLIS_PORT, "ops": OPS_PORT}
    assert ports["fixer"] == {"data": FIXER_PORT, "ops": OPS_PORT}
    assert ports["gateway"] == {"data": GATEWAY_PORT, "ops": OPS_PORT}
    assert all(ports[c]["ops"] == OPS_PORT for c in ("miner", "operator", "validators"))


def test_workers_are_found_whether_ready_or_not(rendered: Callable[[str], Any]) -> None:
    release = rendered("default")
    front, workers = (release.one("Service", f"sn17-trellis{end}")["spec"] for end in ("", "-workers"))
    assert workers["clusterIP"] == "None"
    assert workers["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in front
    assert env(release.pod("miner"))["SN17_WORKERS_DNS"] == (
        "sn17-trellis-workers.mining.svc.cluster.local:10006"
    )


def test_prometheus_scrapes_pods_with_the_labels_the_operator_joins_on(
    rendered: Callable[[str], Any],
) -> None:
    release = rendered("default")
    config = yaml.safe_load(release.one("ConfigMap", "sn17-prometheus")["data"]["prometheus.yml"])
    (job,) = config["scrape_configs"]
    assert job["kubernetes_sd_configs"][0]["role"] == "pod"
    targets = {rule.get("target_label") for rule in job["relabel_configs"]}
    assert {"job", "pod_uid", "pod", "node", "namespace", "release"} <= targets
    scraped = {
        component
        for component, pod in release.pods()
        if "ops" in {p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
    }
    assert scraped == {"trellis", "fixer", "miner", "operator"}


def test_a_tenant_and_a_client_certificate_reach_the_operator(chart: Any) -> None:
    release = chart.render(
        "--set", "prometheus.url=https://mimir.monitoring/prometheus",
        "--set", "prometheus.headers.X-Scope-OrgID=team\\,1",
        "--set", "prometheus.clientCertSecret=mimir-client",
    )  # fmt: skip
    pod = release.pod("operator")
    assert json.loads(env(pod)["SN17_PROMETHEUS__HEADERS"]) == {"X-Scope-OrgID": "team,1"}
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    for kind, key in (("CERT", "tls.crt"), ("KEY", "tls.key")):
        path = f"{mounts['prometheus-client']}/{key}"
        assert env(pod)[f"SN17_PROMETHEUS__CLIENT_{kind}_FILE"] == path
    volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "prometheus-client")
    assert volume["secret"]["secretName"] == "mimir-client"
    assert "SN17_PROMETHEUS__HEADERS" not in env(chart.render().pod("operator"))


def test_a_prometheus_of_ones_own_takes_the_place_of_the_bundled_one(rendered: Callable[[str], Any]) -> None:
    release = rendered("external-prometheus")
    assert "prometheus" not in {component for component, _ in release.pods()}
    assert env(release.pod("operator"))["SN17_PROMETHEUS__URL"] == "http://prometheus.monitoring:9090"
    (monitor,) = release.of("PodMonitor")
    labels = {rule["targetLabel"] for rule in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]}
    assert {"pod_uid", "node", "release"} <= labels
    assert monitor["spec"]["jobLabel"] == LABEL_COMPONENT
    assert release.of("PrometheusRule")


def test_monitoring_objects_wait_for_their_kinds(chart: Any) -> None:
    assert not chart.render().of("PodMonitor", "PrometheusRule")
    forced = chart.render("--set", "monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true")
    assert len(forced.of("PodMonitor", "PrometheusRule")) == 2


def test_the_operator_sees_this_release_only(chart: Any) -> None:
    settings = env(chart.render(release="second", namespace="other").pod("operator"))
    assert settings["SN17_NAMESPACE"] == "other"
    assert settings["SN17_SELECTOR"].endswith("app.kubernetes.io/instance=second")
    assert settings["SN17_PROMETHEUS__SELECTOR"] == 'namespace="other",release="second"'
    assert settings["SN17_LEASE__NAME"] == "second-operator"


def test_settings_of_the_user_replace_the_charts_and_keep_large_numbers(chart: Any) -> None:
    pod = chart.render(
        "--set",
        "trellis.settings.SN17_PROCEDURAL_MAX_GAUSSIANS=1000000,trellis.settings.SN17_SPOOL_DIR=/elsewhere",
    ).pod("trellis")
    names = [e["name"] for e in pod["spec"]["containers"][0]["env"]]
    assert len(names) == len(set(names))
    assert env(pod)["SN17_PROCEDURAL_MAX_GAUSSIANS"] == "1000000"
    assert env(pod)["SN17_SPOOL_DIR"] == "/elsewhere"


def test_a_new_chart_version_alone_restarts_no_worker(chart: Any, tmp_path: Path) -> None:
    text = (CHART / "Chart.yaml").read_text()
    copy = tmp_path / "sn17"
    subprocess.run(["cp", "-r", str(CHART), str(copy)], check=True)
    (copy / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*$", "version: 9.9.9", text))
    changed = chart.run(
        *("helm", "template", "sn17", str(copy), "--kube-version=1.34.4", "--namespace", "mining"), *PRELOADED
    )
    pods = [o for o in yaml.safe_load_all(changed) if o and o["kind"] == "Deployment"]
    before = {o["metadata"]["name"]: o["spec"]["template"] for o in chart.render().of("Deployment")}
    assert {o["metadata"]["name"]: o["spec"]["template"] for o in pods} == before


def test_the_local_hotkey_is_the_one_its_address_names(
    rendered: Callable[[str], Any], tmp_path: Path
) -> None:
    from sn17_protocol.wallet import load_hotkey

    release = rendered("laptop")
    (tmp_path / "hotkey").write_text(release.one("Secret", "sn17-local-hotkey")["stringData"]["hotkey"])
    address = load_hotkey(tmp_path / "hotkey").ss58_address
    assert env(release.pod("validators"))["SN17_MINER_HOTKEYS"] == f'["{address}"]'


def test_images_follow_registry_backend_and_digest(rendered: Callable[[str], Any]) -> None:
    def image(variant: str, component: str) -> str:
        text: str = rendered(variant).pod(component)["spec"]["containers"][0]["image"]
        return text

    assert image("default", "trellis") == f"sn17/trellis:{VERSION}-torch"
    assert image("laptop", "trellis") == f"sn17/trellis:{VERSION}-procedural"
    assert image("registry", "fixer") == f"registry.example/sn17/sn17/fixer:{VERSION}"
    assert image("digests", "trellis") == f"sn17/trellis@sha256:{'a' * 64}"


def test_fetch_takes_pinned_revisions_and_hides_the_token(rendered: Callable[[str], Any]) -> None:
    release = rendered("fetch-with-everything")
    (fetch,) = release.pod("trellis")["spec"]["initContainers"]
    assert fetch["args"][:2] == ["fetch", "--into=/models"]
    pinned = fetch["args"][2:]
    assert [a.partition("@")[0] for a in pinned] == [
        *("microsoft/TRELLIS-text-xlarge", "a/b"),
        *("--needed=microsoft/TRELLIS-image-large", "--needed=openai/clip-vit-large-patch14"),
    ]
    assert all(a.endswith("@0123456789abcdef0123456789abcdef01234567") for a in pinned)
    settings = env(release.pod("trellis"))
    assert settings["SN17_TEXT_CHECKPOINT"] == "/models/microsoft/TRELLIS-text-xlarge"
    settings = {e["name"]: e.get("value") for e in fetch["env"]}
    assert settings["HTTPS_PROXY"] == "http://proxy:3128"
    assert settings["HF_TOKEN_PATH"] == "/var/run/sn17/model-hub/token"
    assert "HF_TOKEN" not in settings
    mounts = {m["name"]: m for m in release.pod("trellis")["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["models"]["readOnly"] is True
    assert "model-hub" not in mounts  # the token is the init container's only


def test_targets_per_validator_are_those_of_the_values(chart: Any) -> None:
    wanted = '{"27":{"least":0.44,"expected":0.81},"128":{"least":0.19,"expected":0.56}}'
    release = chart.render("--set-json", f"acceptance.success.validators={wanted}")
    targets = parse_targets(release.one("ConfigMap", "sn17-acceptance")["data"]["targets.json"], "values")
    assert (targets.all.least, targets.all.expected, targets.all.good) == (0.45, 0.55, 0.58)
    assert (targets.of("5abc", 27).least, targets.of("5abc", 128).expected) == (0.44, 0.56)


def test_acceptance_marks_are_those_of_the_values(chart: Any) -> None:
    release = chart.render("--set", "acceptance.gaussiansMean=400000,fixer.policy=phase1")
    marks = Criteria().with_options(
        json.loads(release.one("ConfigMap", "sn17-acceptance")["data"]["acceptance.json"])
    )
    assert marks.policy == "phase1"
    assert marks.thresholds == Thresholds(gaussians_mean=400_000)


def test_names_of_two_releases_never_collide(chart: Any) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        return {(o["kind"], o["metadata"]["name"]) for o in chart.render(release=release).objects}

    assert not names("one") & names("two")


def test_the_readme_names_every_preset() -> None:
    text = (CHART / "README.md").read_text()
    assert all(path.name in text for path in CHART.glob("values-*.yaml"))


class OnceLoader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which the API server would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        doubles = {key for key in keys if keys.count(key) > 1}
        if doubles:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {doubles}", node.start_mark)
        return found


@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_no_key_stands_twice(chart: Any, preset: str, tool: str, arguments: Any) -> None:
    list(yaml.load_all(chart.text(*arguments[preset], tool=tool), Loader=OnceLoader))


def test_the_laptop_runs_torch_by_one_value(rendered: Callable[[str], Any]) -> None:
    """With the checkpoint in the image: nothing to fetch, nothing to claim, no GPU to wait for."""
    release = rendered("laptop-torch")
    pod = release.pod("trellis")
    (worker,) = pod["spec"]["containers"]
    assert worker["image"] == f"sn17/trellis:{VERSION}-torch"
    assert env(pod)["SN17_BACKEND"] == "torch"
    assert "SN17_TEXT_CHECKPOINT" not in env(pod)
    assert list(worker["resources"]["limits"]) == ["memory"]
    assert "initContainers" not in pod["spec"]
    assert release.of("PersistentVolumeClaim") == ()
    caches = {name: value for name, value in env(pod).items() if name.endswith("_CACHE_DIR")}
    assert set(caches) == {"TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"}
    (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == "compile-cache"]
    assert "medium" not in volume["emptyDir"]
    (mount,) = [m["mountPath"] for m in worker["volumeMounts"] if m["name"] == "compile-cache"]
    assert all(value.startswith(f"{mount}/") for value in caches.values())
