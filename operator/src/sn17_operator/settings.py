"""Settings of the operator's process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sn17_contract.kubernetes import LABEL_PART_OF, PART_OF
from sn17_service.settings import ServiceSettings

from sn17_operator.adapters.prometheus import PrometheusSettings

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class LeaseSettings(BaseModel):
    """The Lease that only one operator can hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("sn17-operator", description="of the Lease; one per release")
    duration_seconds: Annotated[int, Field(ge=3)] = 15
    deadline_seconds: Annotated[int, Field(ge=2, description="the holder stops acting after this")] = 10
    retry_seconds: Annotated[float, Field(gt=0)] = 2.0


class OperatorSettings(ServiceSettings):
    """Everything the operator can be told by its environment; what to do with workers is in the SN17Miner."""

    namespace: str = Field("", description="to watch; empty = the service account's, or default")
    pod_name: str = Field(default_factory=socket.gethostname, description="identity in the Lease")
    selector: str = Field(
        f"{LABEL_PART_OF}={PART_OF}", description="label selector of the pods that are watched"
    )
    tick_seconds: Annotated[float, Field(gt=0, le=300, description="period of the loop")] = 15.0
    prometheus: PrometheusSettings = PrometheusSettings()
    lease: LeaseSettings = LeaseSettings()
    nvsentinel_namespace: str = Field(
        "", description="of NVSentinel, whose requests to drain a node are answered; empty = none are"
    )

    def resolved_namespace(self) -> str:
        """The namespace to watch."""
        if self.namespace:
            return self.namespace
        try:
            return _NAMESPACE_FILE.read_text().strip() or "default"
        except OSError:
            return "default"
