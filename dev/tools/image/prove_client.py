"""One request by the operator's client to a server that answers as an API server does.

It shows that what is left of the Kubernetes client reads a KUBECONFIG, signs in, asks and understands both an
answer and a refusal.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "a-token"
POD = {"kind": "Pod", "metadata": {"name": "worker"}}
REFUSAL = {"kind": "Status", "message": "who are you", "reason": "Unauthorized"}


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}" and self.path.endswith("/pods/worker")
        body = json.dumps(POD if known else REFUSAL).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def ask() -> None:
    # The library reads where the KUBECONFIG lies when it is imported.
    from sn17_operator.adapters.kube import ApiError, KubeApi

    api = await KubeApi.connect()
    try:
        answer = await api.request("GET", "/api/v1/namespaces/default/pods/worker")
        if answer != POD:
            raise SystemExit(f"the client understood {answer}")
        try:
            await api.request("GET", "/api/v1/namespaces/default/pods/other")
        except ApiError as error:
            if error.status != 401:
                raise SystemExit(f"the client understood the refusal as {error.status}") from error
        else:
            raise SystemExit("the client took a refusal for an answer")
    finally:
        await api.close()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    config = {
        "clusters": [cluster],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        path.write_text(json.dumps(config))
        os.environ["KUBECONFIG"] = str(path)
        asyncio.run(ask())
    server.shutdown()


if __name__ == "__main__":
    main()
