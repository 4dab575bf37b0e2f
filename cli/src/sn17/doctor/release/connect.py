"""The way into a cluster that the options name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from sn17_operator.adapters.kube import KubeApi

from sn17.doctor.model import ProbeError

DEFAULT_FILE: Final = "~/.kube/config"


@dataclass(frozen=True, slots=True)
class Way:
    """Kubeconfig file and context, as given; None is not given."""

    kubeconfig: Path | None = None
    context: str | None = None

    def named(self, environment: Mapping[str, str]) -> bool:
        """Whether anything names a cluster."""
        given = bool(self.kubeconfig or self.context or environment.get("KUBECONFIG"))
        return given or "KUBERNETES_SERVICE_HOST" in environment or Path(DEFAULT_FILE).expanduser().exists()

    def file(self) -> str:
        return str(self.kubeconfig or os.environ.get("KUBECONFIG") or Path(DEFAULT_FILE).expanduser())

    def namespace(self) -> str:
        """That of the context. Raises ProbeError."""
        contexts, active = _contexts(self.file())
        if self.context is not None:
            active = next((each for each in contexts if each["name"] == self.context), {})
        return str((active.get("context") or {}).get("namespace") or "default")

    async def connect(self) -> KubeApi:
        """Raises kubernetes.aio.config.ConfigException."""
        if not self.kubeconfig and not self.context:
            return await KubeApi.connect()
        configuration = Configuration()
        configuration.retries = 0
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=self.file(), context=self.context, client_configuration=configuration
        )
        return KubeApi(configuration)


def _contexts(file: str) -> tuple[list[Any], Any]:
    try:
        found: tuple[list[Any], Any] = config.list_kube_config_contexts(config_file=file)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())
        raise ProbeError(f"no cluster: {said}", "set KUBECONFIG, or give --kubeconfig") from error
    return found
