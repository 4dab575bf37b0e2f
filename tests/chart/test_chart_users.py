"""What users of other charts expect of this one: names, registries, extras, thresholds, boards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart_cases import CHART, ChartError

pytestmark = pytest.mark.cluster

MONITORING = (
    "--api-versions=monitoring.coreos.com/v1/PodMonitor",
    "--api-versions=monitoring.coreos.com/v1/PrometheusRule",
)
# What YAML 1.1 or 1.2 reads as something else than text, among the names that Helm and Kubernetes take.
LOOK_ALIKES = ["12345678", "1e5", "0x1f", "0o17", "true", "null", "yes", "on", "2024-01-01", "1-2", "0"]


def strings(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below a key whose value Kubernetes wants as text."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"labels", "matchLabels", "annotations"} and isinstance(value, dict):
                yield from ((f"{path}.{key}.{name}", each) for name, each in value.items())
            elif key in {"name", "namespace", "serviceName", "secretName", "claimName", "serviceAccountName"}:
                yield f"{path}.{key}", value
            yield from strings(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from strings(value, f"{path}[{index}]")


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_names_that_yaml_reads_otherwise_stay_text(chart: Any, name: str) -> None:
    arguments = ("-f", str(CHART / "values-laptop.yaml"), *MONITORING)
    release = chart.render(*arguments, release=name, namespace=name)
    wrong = [
        f"{obj['kind']}{path} is {value!r}"
        for obj in release.objects
        for path, value in strings(obj)
        if not isinstance(value, str | dict)
    ]
    assert not wrong
    config = yaml.safe_load(
        next(o for o in release.of("ConfigMap") if "prometheus.yml" in o["data"])["data"]["prometheus.yml"]
    )
    (discovery,) = config["scrape_configs"][0]["kubernetes_sd_configs"]
    assert discovery["namespaces"]["names"] == [name]
    services = [o["metadata"]["name"] for o in release.of("Service")]
    assert all(re.match("[a-z]", service) for service in services), services


def test_an_image_has_a_registry_or_is_preloaded(chart: Any) -> None:
    with pytest.raises(ChartError, match=r"image\.registry: name the registry"):
        chart.render("--set", "image.preloaded=false")

    def images(*arguments: str) -> set[str]:
        release = chart.render("--set", "image.preloaded=false", *arguments)
        return {
            c["image"]
            for _, pod in release.pods()
            for c in pod["spec"]["containers"]
            if "sn17/" in c["image"]
        }

    own = images("--set", "image.registry=registry.example/team")
    assert own
    assert all(image.startswith("registry.example/team/sn17/") for image in own)
    shared = images("--set", "global.imageRegistry=mirror.example")
    assert all(image.startswith("mirror.example/sn17/") for image in shared)


def test_pull_secrets_are_names_or_references(chart: Any) -> None:
    release = chart.render(
        "--set-json",
        'global.imagePullSecrets=[{"name":"all"}]',
        "--set-json",
        'image.pullSecrets=["one",{"name":"two"}]',
    )
    for component, pod in release.pods():
        assert pod["spec"]["imagePullSecrets"] == [{"name": "all"}, {"name": "one"}, {"name": "two"}], (
            component
        )


@pytest.mark.parametrize("component", ["trellis", "fixer", "miner", "operator", "gateway"])
def test_pods_take_what_their_owner_adds(chart: Any, component: str) -> None:
    extra = {
        **({"enabled": True} if component == "gateway" else {}),
        "podLabels": {"team": "mining"},
        "podAnnotations": {"note": "1"},
        "extraEnv": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "extraVolumes": [{"name": "more", "configMap": {"name": "more"}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "serviceAccount": {"annotations": {"cloud/role": "reader"}},
    }
    release = chart.render("--set-json", f"{component}={json.dumps(extra)}")
    pod = release.pod(component)
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"]["team"] == "mining"
    assert pod["metadata"]["annotations"]["note"] == "1"
    assert extra["extraEnv"][0] in container["env"]
    assert extra["extraVolumes"][0] in pod["spec"]["volumes"]
    assert extra["extraVolumeMounts"][0] in container["volumeMounts"]
    account = release.one("ServiceAccount", f"sn17-{component}")
    assert account["metadata"]["annotations"] == {"cloud/role": "reader"}


def test_resources_of_a_worker_come_over_its_sizes(chart: Any) -> None:
    release = chart.render(
        "--set-json", 'trellis.resources={"requests":{"ephemeral-storage":"5Gi","cpu":"4"}}'
    )
    (container,) = release.pod("trellis")["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "4", "memory": "12Gi", "ephemeral-storage": "5Gi"}
    assert container["resources"]["limits"]["memory"] == "12Gi"


@pytest.mark.parametrize("resources", ['{"limits":{"memory":"14Gi"}}', '{"requests":{"memory":"1Gi"}}'])
def test_a_workers_memory_request_is_its_limit(chart: Any, resources: str) -> None:
    """Two model processes at a time need the memory that the limit promises."""
    with pytest.raises(ChartError, match="request must equal the limit"):
        chart.render("--set-json", f"trellis.resources={resources}")


def test_rules_go_to_one_prometheus_only(chart: Any) -> None:
    bundled = chart.render(*MONITORING)
    assert not bundled.of("PrometheusRule")
    assert bundled.of("PodMonitor")
    own = chart.render(*MONITORING, "--set", "prometheus.url=http://prometheus.monitoring:9090")
    assert len(own.of("PrometheusRule")) == 1
    forced = chart.render(*MONITORING, "--set", "monitoring.rules.enabled=true")
    assert len(forced.of("PrometheusRule")) == 1


def alerts(release: Any) -> dict[str, Any]:
    (config,) = [o for o in release.of("ConfigMap") if "rules.yml" in o["data"]]
    groups = yaml.safe_load(config["data"]["rules.yml"])["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_a_runbook_is_a_link_or_none(chart: Any) -> None:
    for alert, rule in alerts(chart.render()).items():
        assert "runbook_url" not in rule["annotations"], alert
        assert (CHART.parents[1] / rule["annotations"]["runbook"]).is_file()
    base = "https://example.com/docs/runbooks"
    for alert, rule in alerts(chart.render("--set", f"monitoring.rules.runbookBaseUrl={base}/")).items():
        assert rule["annotations"]["runbook_url"] == f"{base}/{alert}.md"
    site = ("--set", f"monitoring.rules.runbookBaseUrl={base},monitoring.rules.runbookSuffix=/")
    for alert, rule in alerts(chart.render(*site)).items():
        assert rule["annotations"]["runbook_url"] == f"{base}/{alert}/", alert
    with pytest.raises(ChartError, match="runbookBaseUrl"):
        chart.render("--set", "monitoring.rules.runbookBaseUrl=docs/runbooks")


def boards(release: Any) -> dict[str, Any]:
    """The dashboards by their file's name."""
    return {
        file: json.loads(text)
        for o in release.of("ConfigMap")
        if "-dashboard-" in o["metadata"]["name"]
        for file, text in o["data"].items()
    }


def test_boards_of_two_releases_live_side_by_side(chart: Any) -> None:
    places = [
        ("sn17", "mining"),
        ("other", "mining"),
        ("sn17", "elsewhere"),
        ("sn17-mining", "x"),
        ("mining", "x-sn17"),
    ]
    found = [boards(chart.render(release=release, namespace=namespace)) for release, namespace in places]
    for what in (lambda f, b: f, lambda f, b: b["uid"], lambda f, b: b["title"]):
        names = [what(file, board) for each in found for file, board in each.items()]
        assert len(set(names)) == len(names), names
    assert all(len(board["uid"]) <= 40 for each in found for board in each.values())


# Each threshold by the value that sets it: a number of its own, where it shows, and what must be gone then.
THRESHOLDS = {
    "operator.spec.rules.memory.highPercent": (61, ("0.61",), "0.8 *"),
    "operator.spec.rules.memory.emergencyPercent": (93, ("0.93",), "0.9 *"),
    "operator.spec.rules.gaussians.minimumMean": (123457, ("123457",), "150000"),
    "operator.spec.rules.canary.driftPercent": (37, ("0.37",), "vector(0.2)"),
    "acceptance.gaussiansMean": (345679, ("345679",), "350000"),
    "acceptance.generationSeconds": (41, ("vector(41)",), "vector(35)"),
    "monitoring.rules.thresholds.successRatio": (0.41, ("< 0.41", "vector(0.41)"), "vector(0.45)"),
    "monitoring.rules.thresholds.successExpectedRatio": (0.53, ("vector(0.53)",), "vector(0.55)"),
    "monitoring.rules.thresholds.successGoodRatio": (0.71, ("vector(0.71)",), "vector(0.58)"),
    "monitoring.rules.thresholds.yieldRatio": (0.37, ("< 0.37",), ""),
    "monitoring.rules.thresholds.memoryRatio": (0.87, ("> 0.87",), ") > 0.9\n"),
    "monitoring.rules.thresholds.gaussiansMean": (212345, ("< 212345",), "250000"),
    "monitoring.rules.thresholds.unrepairableRatio": (0.33, ("> 0.33",), "> 0.2\n"),
    "monitoring.rules.thresholds.clockSkewSeconds": (3.5, ("> 3.5",), "[15m])) > 2"),
    "monitoring.rules.thresholds.gatewayWaitSeconds": (77, ('release="sn17"}) > 77\n',), "}) > 180\n"),
}


@pytest.mark.parametrize("value", list(THRESHOLDS))
def test_a_threshold_is_the_same_number_everywhere(chart: Any, value: str) -> None:
    number, shown, gone = THRESHOLDS[value]
    release = chart.render("--set-json", f"{value}={number}")
    text = yaml.safe_dump([alerts(release), *boards(release).values()], width=10_000)
    text += "\n".join(rule["expr"] for rule in alerts(release).values())
    for part in shown:
        assert part in text
    if gone:
        assert gone not in text
    assert not re.search(r"@[a-z_]+@", text)


def test_every_threshold_of_the_chart_can_be_set(chart: Any) -> None:
    """A new name in the template needs a row above."""
    template = (CHART / "templates/monitoring/_rules.tpl").read_text()
    body = template.partition('define "sn17.thresholds"')[2].partition("end -}}")[0]
    assert len(re.findall(r"^[a-z_]+:", body, re.MULTILINE)) == len(THRESHOLDS)


def test_the_laptop_preset_does_not_ship_an_alert_that_must_fire(chart: Any) -> None:
    """Plain shapes have 185,000 gaussians on average."""
    release = chart.render("-f", str(CHART / "values-laptop.yaml"))
    least = float(re.search(r"< (\d+)", alerts(release)["SN17GaussiansLow"]["expr"])[1])  # type: ignore[index]
    assert least < 185_000


def test_the_laptop_preset_needs_no_further_value(chart: Any) -> None:
    preset = str(CHART / "values-laptop.yaml")
    assert "kind: SN17Miner" in chart.run("helm", "template", "sn17", str(CHART), "-f", preset)
    with pytest.raises(ChartError, match=r"image\.registry"):
        chart.run("helm", "template", "sn17", str(CHART))


def test_an_image_volume_takes_the_place_of_claim_and_fetch(chart: Any) -> None:
    weights = f"registry.example/weights@sha256:{'c' * 64}"
    release = chart.render("--set", f"trellis.model.image={weights}", "--kube-version=1.35.0")
    pod = release.pod("trellis")
    assert "initContainers" not in pod["spec"]
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "models"]
    assert volume["image"] == {"reference": weights, "pullPolicy": "IfNotPresent"}
    assert not [o for o in release.of("PersistentVolumeClaim") if "models" in o["metadata"]["name"]]
    with pytest.raises(ChartError, match=r"from 1\.35 on"):
        chart.render("--set", f"trellis.model.image={weights}")
    with pytest.raises(ChartError, match="image"):
        chart.render("--set", "trellis.model.image=registry.example/weights:latest")
