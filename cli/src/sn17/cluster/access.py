"""Which cluster and namespace is meant, as users of kubectl expect it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
import yaml

from sn17.console import say
from sn17.exits import Exit

SERVICE_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_FILE: Final = "~/.kube/config"
_ADVICE: Final = "set KUBECONFIG to the file of a cluster, or give --kubeconfig"


class ClusterError(Exception):
    """A cluster or a release that cannot be used; the message says why and what to do."""


@contextmanager
def cannot(command: str) -> Iterator[None]:
    """One sentence and the exit code for a cluster that cannot be used."""
    try:
        yield
    except ClusterError as error:
        say(f"sn17 {command}: {error}", error=True)
        raise typer.Exit(Exit.CANNOT) from error


@dataclass(frozen=True, slots=True)
class Access:
    """What the options ``--kubeconfig``, ``--context`` and ``--namespace`` say; None is not given."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    def kubectl_flags(self) -> list[str]:
        """The same for kubectl. Raises ClusterError."""
        flags = ["--namespace", self.chosen_namespace()]
        if self.kubeconfig is not None:
            flags += ["--kubeconfig", str(self.kubeconfig)]
        if self.context is not None:
            flags += ["--context", self.context]
        return flags

    def in_cluster(self) -> bool:
        """Nothing names a kubeconfig, and this is a pod with a service account."""
        given = self.kubeconfig or self.context or os.environ.get("KUBECONFIG")
        return not given and "KUBERNETES_SERVICE_HOST" in os.environ

    def files(self) -> str:
        """The kubeconfig files that there are, joined as in KUBECONFIG.

        Raises:
            ClusterError: there is none, or one of them cannot be read.
        """
        if self.kubeconfig is not None:
            named = [str(self.kubeconfig)]
        else:
            named = (os.environ.get("KUBECONFIG") or DEFAULT_FILE).split(os.pathsep)
        named = [os.path.expanduser(path) for path in named if path]
        found = [path for path in named if os.path.exists(path)]
        if not found:
            raise ClusterError(f"no cluster: {os.pathsep.join(named)} does not exist; {_ADVICE}")
        used = [path for path in found if _read(path)]
        if not used:
            raise ClusterError(f"no cluster: {os.pathsep.join(found)} is empty; {_ADVICE}")
        return os.pathsep.join(used)

    def chosen_namespace(self) -> str:
        """That of the option, else of the context, else of the service account.

        Raises:
            ClusterError: there is no kubeconfig, or no such context.
        """
        if self.namespace:
            return self.namespace
        if self.in_cluster():
            try:
                return SERVICE_ACCOUNT_NAMESPACE.read_text().strip() or "default"
            except OSError:
                return "default"
        return str(self._context().get("namespace") or "default")

    def _context(self) -> dict[str, Any]:
        documents = [_read(path) for path in self.files().split(os.pathsep)]
        current = self.context or next(
            (d["current-context"] for d in documents if d.get("current-context")), ""
        )
        contexts = [item for document in documents for item in document.get("contexts") or ()]
        names = [str(item.get("name")) for item in contexts if isinstance(item, dict)]
        for item in contexts:
            if isinstance(item, dict) and item.get("name") == current:
                inner = item.get("context")
                return inner if isinstance(inner, dict) else {}
        known = ", ".join(names) or "none"
        told = f"there is no context {current!r}" if current else "there is no current context"
        raise ClusterError(f"no cluster: {told}, {self.files()} has: {known}; give --context")


def _read(path: str) -> dict[str, Any]:
    """A kubeconfig; empty where the file is. Raises ClusterError."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterError(f"no cluster: {path}: {error.strerror}; {_ADVICE}") from error
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise ClusterError(f"no cluster: {path} is no kubeconfig: {first}; {_ADVICE}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ClusterError(f"no cluster: {path} is no kubeconfig: it holds no mapping; {_ADVICE}")
    for name in ("contexts", "clusters", "users"):
        if not isinstance(loaded.get(name) or [], list):
            raise ClusterError(f"no cluster: {path} is no kubeconfig: {name} is no list; {_ADVICE}")
    return loaded
