"""The connections that a release needs, from the components that it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sn17_contract.gateway import GATEWAY_PORT
from sn17_contract.http import FIXER_PORT, OPS_PORT, TRELLIS_PORT

from sn17.doctor.release.policies import End, Way

SCRAPED: Final = ("trellis", "fixer", "miner", "operator", "gateway", "validators")
INSIDE: Final = (
    ("miner", "trellis", TRELLIS_PORT),
    ("miner", "fixer", FIXER_PORT),
    ("miner", "validators", 8099),
    ("miner", "gateway", GATEWAY_PORT),
    ("gateway", "miner", OPS_PORT),
    ("operator", "trellis", OPS_PORT),
    ("operator", "trellis", TRELLIS_PORT),
    ("operator", "prometheus", OPS_PORT),
    ("grafana", "prometheus", OPS_PORT),
    *(("prometheus", name, OPS_PORT) for name in SCRAPED),
)
"""As docs/network.md says; of the local validators one port, and without what `helm test` uses."""
OF_PAGE: Final = ("gateway", "miner")
"""Only open with `gateway.page.enabled`."""
RESOLVER: Final = End("DNS", {"k8s-app": "kube-dns"}, "kube-system")
DNS_PORT: Final = 53
FAR: Final = End("validators outside", address="203.0.113.7")
"""An address of the documentation range: for every address outside cluster and site."""
FAR_PORT: Final = 8091
ASKS_API: Final = ("operator", "prometheus")


def needed_ways(
    components: Mapping[str, Mapping[str, str]],
    namespace: str,
    api: Sequence[tuple[str, int]],
    *,
    page: bool,
) -> Iterator[Way]:
    """``components``: labels of the pods of each; ``api``: addresses and ports of the API server.

    ``page``: the gateway's page reads from the miner.
    """
    ends = {name: End(name, labels, namespace) for name, labels in components.items()}
    for source, target, port in INSIDE:
        if source in ends and target in ends and (page or (source, target) != OF_PAGE):
            yield Way(ends[source], ends[target], port)
    for source in ("miner", *ASKS_API, *(OF_PAGE[:1] if page else ())):
        if source in ends:
            yield Way(ends[source], RESOLVER, DNS_PORT, "UDP")
    for source in ASKS_API:
        if source in ends:
            for address, port in api:
                yield Way(ends[source], End("API server", address=address), port)
    if "miner" in ends and "validators" not in ends:
        yield Way(ends["miner"], FAR, FAR_PORT)
