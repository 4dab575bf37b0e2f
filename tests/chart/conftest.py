"""Renders the chart with the real Helm, once per set of values."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import yaml
from chart_cases import CHART, COMMITS, PRELOADED, REVISION, ChartError
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import MissingError, require_tools

KUBERNETES = "1.34.4"

Manifest = Mapping[str, Any]

PRESETS: dict[str, tuple[str, ...]] = {
    "default": (),
    "laptop": ("-f", str(CHART / "values-laptop.yaml")),
    "single-gpu": (
        "-f",
        str(CHART / "values-single-gpu.yaml"),
        *COMMITS,
    ),
    "multi-gpu": ("-f", str(CHART / "values-multi-gpu.yaml"), *COMMITS),
}

MONITORING_APIS = (
    "--api-versions=monitoring.coreos.com/v1/PodMonitor",
    "--api-versions=monitoring.coreos.com/v1/PrometheusRule",
)

# Each toggle away from the default, so that every branch of the templates is rendered at least once.
TOGGLES: dict[str, tuple[str, ...]] = {
    "no-miner": ("--set", "miner.enabled=false"),
    "no-operator": ("--set", "operator.enabled=false"),
    "no-grafana": ("--set", "grafana.enabled=false"),
    "no-network-policies": ("--set", "networkPolicy.enabled=false"),
    "no-budgets": (
        "--set",
        "trellis.podDisruptionBudget.enabled=false,fixer.podDisruptionBudget.enabled=false,"
        "miner.podDisruptionBudget.enabled=false",
    ),
    "external-prometheus": ("--set", "prometheus.url=http://prometheus.monitoring:9090", *MONITORING_APIS),
    "prometheus-kept": (
        "--set",
        "prometheus.persistence.enabled=true,prometheus.persistence.storageClassName=x",
    ),
    "alertmanager": ("--set", "prometheus.alertmanagers={alertmanager:9093}"),
    "autoscaling": ("--set", "fixer.autoscaling.enabled=true"),
    "existing-claim": ("--set", "trellis.model.existingClaim=weights"),
    "fetch-with-everything": (
        "--set",
        f"{COMMITS[1]},trellis.model.tokenSecret=hub,trellis.model.caConfigMap=ca,"
        "trellis.model.proxy=http://proxy:3128,trellis.model.endpoint=https://hub.example,"
        f"trellis.model.extra[0].repository=a/b,trellis.model.extra[0].revision={REVISION}",
    ),
    "laptop-torch": ("-f", str(CHART / "values-laptop.yaml"), "--set", "trellis.backend=torch"),
    "no-gpu": ("--set", "trellis.gpu.enabled=false"),
    "runtime-class": ("--set", "trellis.runtimeClassName=nvidia,trellis.priorityClassName=high"),
    "journal-in-the-pod": ("--set", "miner.persistence.enabled=false"),
    "existing-secrets": (
        "--set",
        "adminToken.existingSecret=mine,grafana.existingSecret=mine-too,miner.hotkey.existingSecret=key",
    ),
    "registry": ("--set", "image.registry=registry.example/sn17,image.pullSecrets={pull}"),
    "digests": ("--set", f"trellis.image.digest=sha256:{'a' * 64},prometheus.image.digest=sha256:{'b' * 64}"),
    "aggregated": ("--set", "operator.rbac.aggregate=true"),
    "crd-upgrade": ("--set", "crds.upgrade.enabled=true"),
    "no-dashboards": ("--set", "monitoring.dashboards.enabled=false,grafana.enabled=false"),
    "peers": (
        "--set-json",
        'networkPolicy.metricsFrom=[{"namespaceSelector":{}}]',
        "--set-json",
        'networkPolicy.grafanaFrom=[{"namespaceSelector":{}}]',
        "--set-json",
        'networkPolicy.prometheusTo=[{"namespaceSelector":{}}]',
    ),
    "gateway": ("--set", "gateway.enabled=true"),
    "gateway-public": (
        "--set",
        "gateway.enabled=true,gateway.guests.enabled=true,gateway.guests.existingSecret=guests,"
        "gateway.tls.existingSecret=cert,gateway.keyHash.existingSecret=hash,gateway.ingress.enabled=true,"
        "gateway.ingress.host=splats.example,gateway.ingress.tlsSecret=splats,gateway.ingress.className=nginx,"
        "gateway.ingress.trustedProxies={10.0.0.0/8},gateway.persistence.enabled=false",
        "--set-json",
        'networkPolicy.gatewayFrom=[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ingress"}}}]',
    ),
    "gateway-replicas": (
        "--set",
        "gateway.enabled=true,gateway.replicas=3,gateway.postgres.existingSecret=database,"
        "gateway.persistence.accessModes={ReadWriteMany}",
    ),
    "miner-gateways": (
        "--set",
        "gateway.enabled=true,gateway.tls.existingSecret=cert,miner.ownGatewayWeight=2,miner.fastLane=deadline",
        "--set-json",
        'miner.gateways=[{"name":"public","url":"https://gateway.example","weight":0.5,'
        '"hotkeySecret":"second","caSecret":"ca","taskSeconds":300},{"name":"plain","url":"http://other:8404"}]',
    ),
    "miner-gateways-laptop": (
        "-f",
        str(CHART / "values-laptop.yaml"),
        "--set-json",
        'miner.gateways=[{"name":"public","url":"https://gateway.example"}]',
    ),
    "autoscaling-hpa": ("--set", "trellis.autoscaling.kind=hpa,trellis.autoscaling.minReplicas=1"),
    "autoscaling-keda": ("-f", str(CHART / "values-laptop.yaml"), "--set", "trellis.autoscaling.kind=keda"),
    "autoscaling-keda-credentials": (
        "--set",
        "prometheus.url=https://prometheus.monitoring:9090,prometheus.headers.X-Scope-OrgID=team,"
        "trellis.autoscaling.kind=keda,trellis.autoscaling.keda.authenticationRef.name=prometheus,"
        "trellis.autoscaling.keda.authModes={tls,bearer},"
        "operator.settings.SN17_PROMETHEUS__BEARER_TOKEN_FILE=/etc/prometheus-access/token,"
        "operator.settings.SN17_PROMETHEUS__CA_FILE=/etc/prometheus-access/ca.crt",
        "--set-json",
        'operator.extraVolumes=[{"name":"prometheus-access","secret":{"secretName":"prometheus-access"}}]',
        "--set-json",
        'operator.extraVolumeMounts=[{"name":"prometheus-access","mountPath":"/etc/prometheus-access","readOnly":true}]',
    ),
    "hardened": ("--set", "admissionPolicies.enabled=true,userNamespaces=true"),
    "common-labels": ("--set", "commonLabels.team=mining"),
}

ALL = {name: (*PRELOADED, *arguments) for name, arguments in {**PRESETS, **TOGGLES}.items()}


@dataclass(frozen=True)
class Render:
    """What one `helm template` printed."""

    objects: tuple[Manifest, ...] = field(repr=False)

    def of(self, *kinds: str) -> tuple[Manifest, ...]:
        return tuple(o for o in self.objects if o["kind"] in kinds)

    def one(self, kind: str, name: str) -> Manifest:
        """The object of that kind and name. Raises LookupError unless there is just one."""
        found = [o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} {kind} {name}")
        return found[0]

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """Every pod that the release makes: (component, pod template)."""
        for obj in self.objects:
            template = obj if obj["kind"] == "Pod" else obj.get("spec", {}).get("template")
            if template and "spec" in template:
                yield template["metadata"]["labels"]["app.kubernetes.io/component"], template

    def pod(self, component: str) -> Manifest:
        return next(pod for name, pod in self.pods() if name == component)


@dataclass(frozen=True)
class Chart:
    """The chart and the tools that were built to work with it."""

    tools: Mapping[str, str]

    def run(self, tool: str, *args: str, stdin: str | None = None) -> str:
        """What a tool prints. Raises ChartError."""
        answer = subprocess.run(
            [self.tools[tool], *args], input=stdin, capture_output=True, text=True, timeout=300, check=False
        )
        if answer.returncode:
            raise ChartError(f"{tool} {' '.join(args)}: {answer.stdout}{answer.stderr}")
        return answer.stdout

    def text(self, *args: str, tool: str = "helm", release: str = "sn17", namespace: str = "mining") -> str:
        # Named, since a Helm built from source may not know which Kubernetes it was built for.
        version = f"--kube-version={KUBERNETES}"
        where = ("--namespace", namespace)
        return self.run(tool, "template", release, str(CHART), version, *where, *PRELOADED, *args)

    def render(
        self, *args: str, tool: str = "helm", release: str = "sn17", namespace: str = "mining"
    ) -> Render:
        """The objects of a release with these arguments of `helm template`. Raises ChartError."""
        text = self.text(*args, tool=tool, release=release, namespace=namespace)
        return Render(tuple(o for o in yaml.load_all(text, Loader=yaml.CSafeLoader) if o))


@cache
def _chart() -> Chart:
    return Chart(require_tools(["helm4", "helm3", "kubeconform"]))


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart with Helm 4, Helm 3 and kubeconform."""
    try:
        return _chart()
    except MissingError as missing:
        unavailable(missing)


@pytest.fixture(scope="session")
def rendered(chart: Chart) -> Callable[[str], Render]:
    """`rendered(name)` gives the render of a preset or toggle by Helm 4, made once."""

    @cache
    def render(name: str) -> Render:
        return chart.render(*ALL[name])

    return render


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`preset` and `variant` (presets and toggles) as parameters by name."""
    for name, values in (("preset", PRESETS), ("variant", ALL)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(values))


@pytest.fixture(scope="session")
def arguments() -> Mapping[str, tuple[str, ...]]:
    """Arguments of `helm template` or `helm install` for each preset and toggle."""
    return ALL
