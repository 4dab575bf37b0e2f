"""Names of the API group, labels and annotations, and what a container says at its end."""

from __future__ import annotations

from typing import Final

EXIT_CODE_RECYCLE: Final = 75
MODEL_MISSING: Final = "ModelMissing"
"""First word, before a colon, of a worker's last words when nobody gave it weights."""

GROUP: Final = "sn17.io"
VERSION: Final = "v1alpha1"
KIND: Final = "SN17Miner"
PLURAL: Final = "sn17miners"
SHORT_NAME: Final = "snm"
PART_OF: Final = "sn17"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
ANNOTATION_INTENT: Final = "sn17.io/intent"
ANNOTATION_HISTORY: Final = "sn17.io/history"
ANNOTATION_DEVICE_SUSPECT: Final = "sn17.io/device-suspect"
"""On a worker's pod: why its device is suspect, for people and for systems that look after nodes."""
ANNOTATION_CORDON: Final = "sn17.io/cordon"
ANNOTATION_SKIP_REMEDIATION: Final = "sn17.io/skip-remediation"
ANNOTATION_RECYCLE_REQUESTED: Final = "sn17.io/recycle-requested"
ANNOTATION_PAUSED: Final = "sn17.io/paused"
ANNOTATION_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
"""Kubernetes' own: of pods that are equal otherwise the one with the lowest goes first."""
