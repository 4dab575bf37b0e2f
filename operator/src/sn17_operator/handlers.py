"""kopf glue: settings, login, and watches that keep the store fresh and wake the tick. Nothing else.

No finalizers, timers or daemons: uninstalling never waits for an operator, and one loop decides about all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import kopf
from sn17_contract.kubernetes import GROUP, PLURAL, VERSION

from sn17_operator.adapters.store import Store

FINALIZER = f"{GROUP}/finalizer"


def configure(settings: kopf.OperatorSettings, selector: str) -> None:
    """kopf as it behaves well: own names on objects, short time-outs, no log lines as Events."""
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = (1, 1, 2, 3, 5, 8)
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.watching.inactivity_timeout = 70
    settings.watching.label_selectors["", "v1", "pods"] = selector
    # One line per watched change, with all of kopf's settings in it, helps no one.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    settings.posting.enabled = False
    settings.posting.level = logging.WARNING
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = 10


def build_registry(
    store: Store, wake: Callable[[], None], login: Callable[..., Any] | None = None
) -> kopf.OperatorRegistry:
    """A registry of its own, so that nothing is shared with another operator in the same process."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def connect(**kwargs: Any) -> Any:
        if login is not None:
            return login(**kwargs)
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod_changed(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        if type == "DELETED":
            store.pod_gone(body["metadata"]["uid"])
            wake()
        elif store.pod_seen(body):
            wake()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def miner_changed(type: str | None, body: Mapping[str, Any], **_: Any) -> None:
        if type == "DELETED":
            store.miner_gone(body["metadata"]["uid"])
            wake()
        elif store.miner_seen(body):
            wake()

    return registry
