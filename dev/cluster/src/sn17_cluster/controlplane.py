"""etcd, API server, controller manager and scheduler as plain processes: what most tests of an operator need.

Everything a Kubernetes API does without nodes works: custom resources with their validation rules, RBAC,
Helm, status, eviction and disruption budgets, Deployments and their pods as objects (Pending until a test
says otherwise through their status). Needs neither root nor containers, binds to loopback, is ready in
seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sn17_cluster.client import Cluster
from sn17_cluster.pki import Authority, KeyPair, signing_key, write_kubeconfig
from sn17_cluster.processes import ProcessDiedError, Supervisor
from sn17_cluster.requirements import require_commands, require_tools
from sn17_cluster.state import RunState

SERVICE_RANGE = "198.19.0.0/24"
SERVICE_API = "198.19.0.1"
START_TIMEOUT = 60.0
START_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of one control plane."""

    etcd: int
    etcd_peer: int
    api: int
    controllers: int
    scheduler: int


def free_ports() -> Ports:
    """Five ports that are free on loopback now. Another process may still take one first: see `start`."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(5)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


class ControlPlane:
    """One control plane in the folder of `state`; its processes end with the supervisor.

    address: where the parts reach the API server, and what it announces to pods.
    prefix: the command that enters the network namespace it shall run in.
    expose: makes a port of that namespace reachable at the same port of this one's loopback.
    api_flags: more flags of the API server, such as those of an audit log.
    """

    def __init__(
        self,
        state: RunState,
        supervisor: Supervisor,
        *,
        address: str = "127.0.0.1",
        bind: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        expose: Callable[[int], None] | None = None,
        api_flags: Sequence[str] = (),
    ) -> None:
        require_commands(["setpriv"])
        self.tools = require_tools(["kubernetes", "etcd"])
        self.folder = state.folder
        self.supervisor = supervisor
        self.address = address
        self.bind = bind
        self.prefix = prefix
        self._expose = expose
        self._more_api_flags = api_flags
        self.ports = free_ports()
        self.authority = Authority(self.folder / "pki")
        self._serving = self.authority.issue("kube-apiserver", hosts=self._hosts())
        self._kubelet_client = self.authority.issue("kube-apiserver-kubelet-client", ["system:masters"])
        self._tokens = signing_key(self.folder / "pki")
        self._old_tokens: list[KeyPair] = []
        self._admin = self.authority.issue("admin", ["system:masters"])

    def _hosts(self) -> list[str]:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        return [
            *names,
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            SERVICE_API,
            self.address,
        ]

    @property
    def cluster(self) -> Cluster:
        """Administrator's access from this process."""
        return Cluster(self.folder / "admin.kubeconfig", self.tools)

    def start(self) -> None:
        """Start everything and wait until requests are answered and controllers run.

        Raises:
            MissingError: the tools are not built.
            ProcessDiedError, NotReadyError: a part did not come up; the message holds the end of its log.
        """
        before = self.supervisor.running()
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once()
            except ProcessDiedError as error:
                self.supervisor.stop_all(keep=before)
                if "address already in use" not in str(error).lower() or attempt == START_ATTEMPTS:
                    raise
                self.ports = free_ports()
            else:
                return

    def kubeconfig(self, name: str, user: KeyPair) -> Path:
        """A kubeconfig for `user`, for a process in the control plane's own network namespace."""
        server = f"https://{self.address}:{self.ports.api}"
        return write_kubeconfig(self.folder / f"{name}.kubeconfig", server, self.authority, user)

    def _start_once(self) -> None:
        write_kubeconfig(
            self.folder / "admin.kubeconfig",
            f"https://127.0.0.1:{self.ports.api}",
            self.authority,
            self._admin,
        )
        self._run("etcd", self._etcd_flags())
        self._run("kube-apiserver", self._api_flags())
        if self._expose is not None:
            self._expose(self.ports.api)
        self.wait_ready()
        self._run("kube-controller-manager", self._controller_command())
        self._run("kube-scheduler", self._client_flags("kube-scheduler", self.ports.scheduler))
        # The first sign that the controllers do their work, and what every pod needs.
        self.supervisor.wait("service accounts", self._has_service_account, timeout=START_TIMEOUT)

    def _client_flags(self, name: str, port: int) -> list[str]:
        config = self.kubeconfig(name, self.authority.issue(f"system:{name}"))
        return [
            f"--kubeconfig={config}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ]

    def _controller_command(self) -> list[str]:
        name = "kube-controller-manager"
        return [*self._client_flags(name, self.ports.controllers), *self._controller_flags()]

    def _run(self, name: str, flags: Sequence[str]) -> None:
        self.supervisor.start(name, [self.tools[name], *flags], prefix=self.prefix)

    def wait_ready(self) -> None:
        """Wait until the API server says it is ready. Raises ProcessDiedError, NotReadyError."""
        self.supervisor.wait("the API server", self._is_ready, timeout=START_TIMEOUT)

    def renew_certificate(self) -> None:
        """Another serving certificate of the same authority, for the API server's next start."""
        self._serving = self.authority.issue("kube-apiserver", hosts=self._hosts())

    def rotate_token_key(self, key: KeyPair) -> None:
        """Sign service-account tokens with `key` from the next start on; those signed before stay valid."""
        self._old_tokens.append(self._tokens)
        self._tokens = key
        for name, flags in (
            ("kube-apiserver", self._api_flags()),
            ("kube-controller-manager", self._controller_command()),
        ):
            self.supervisor.change(name, [self.tools[name], *flags])

    def _is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports.api, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _has_service_account(self) -> bool:
        argv = [self.tools["kubectl"], "get", "serviceaccount", "default"]
        return self.cluster.run(argv, check=False).returncode == 0

    def _etcd_flags(self) -> list[str]:
        client = f"http://127.0.0.1:{self.ports.etcd}"
        peer = f"http://127.0.0.1:{self.ports.etcd_peer}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def _api_flags(self) -> list[str]:
        kubelet, tokens = self._kubelet_client, self._tokens
        on_loopback = self.address.startswith("127.")
        return [
            f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}",
            f"--secure-port={self.ports.api}",
            f"--bind-address={self.bind}",
            f"--advertise-address={self.address}",
            # A loopback address may not stand in the Endpoints of the Service `kubernetes`.
            *(["--endpoint-reconciler-type=none"] if on_loopback else []),
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            # Node names are in no DNS: without this `logs` and `exec` fail.
            "--kubelet-preferred-address-types=InternalIP",
            *(f"--service-account-key-file={each.certificate}" for each in (tokens, *self._old_tokens)),
            f"--service-account-signing-key-file={tokens.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            *self._more_api_flags,
        ]

    def _controller_flags(self) -> list[str]:
        return [
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self._tokens.key}",
            f"--root-ca-file={self.authority.certificate}",
            f"--cluster-signing-cert-file={self.authority.certificate}",
            f"--cluster-signing-key-file={self.authority.key}",
        ]


@contextlib.contextmanager
def control_plane(*, api_flags: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """A control plane of one's own for as long as the block lasts."""
    state = RunState.create()
    supervisor = Supervisor(state)
    try:
        plane = ControlPlane(state, supervisor, api_flags=api_flags)
        plane.start()
        yield plane
    finally:
        supervisor.kill_all()
        state.close()
