"""A kubectl that knows one release, whose every port-forward leads to one port of this machine."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path

TOKEN = "secret"
KUBECTL = """#!{python}
# Answers as kubectl does for one release, and notes what it was asked.
import json, os, signal, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
pod = {{"metadata": {{"name": "sn17-0"}}}}
mount = {{"name": "admin-token", "secret": {{"secretName": "sn17-admin-token"}}}}
words = sys.argv[1:]
if words[0] == "port-forward":
    print("Forwarding from 127.0.0.1:{port} -> 9090", flush=True)
    signal.pause()
elif "nowhere" in " ".join(words):
    print(json.dumps({{"items": []}}))
elif words[1] == "pods":
    print(json.dumps({{"items": [pod]}}))
elif words[1] == "secret":
    print(json.dumps({{"data": {{"token": {token!r}}}}}))
else:
    print(json.dumps({{"items": [{{"spec": {{"template": {{"spec": {{"volumes": [mount]}}}}}}}}]}}))
"""


def fake_kubectl(folder: Path, log: Path, port: int) -> None:
    """Written to ``folder/bin``, beside two kubeconfigs; it notes in ``log`` what it was asked."""
    kubectl = folder / "bin" / "kubectl"
    kubectl.parent.mkdir()
    token = base64.b64encode(TOKEN.encode()).decode()
    kubectl.write_text(KUBECTL.format(python=sys.executable, log=str(log), port=port, token=token))
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    for name in ("own", "other"):
        context = {"name": name, "context": {"cluster": "k", "user": "u", "namespace": f"ns-{name}"}}
        config = {"current-context": name, "contexts": [context], "clusters": [], "users": []}
        (folder / f"{name}.yaml").write_text(json.dumps(config))


def reaches(folder: Path) -> dict[str, str]:
    """Environment in which it is found."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "KUBECONFIG": str(folder / "own.yaml")}
