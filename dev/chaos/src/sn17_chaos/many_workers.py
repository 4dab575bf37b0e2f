"""A thousand workers for the real API server: a Deployment's pods, and one process that answers for all.

Each worker listens on a loopback address of its own, as a pod does, and is scraped and asked there. The
pods' statuses are written the way kubelet writes them; no scheduler looks at them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
import yaml
from sn17_cluster.rest import ApiClient

from sn17_chaos.real_fleet import TOKEN, Fleet, Worker
from sn17_chaos.waiting import wait_for

INTENT = "sn17.io/intent"
WRITERS = 8


class Crowd(Fleet):
    """Pods of one Deployment, all of whose workers live in this process."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.api = ApiClient(self.cluster.kubeconfig)
        self._pool = ThreadPoolExecutor(WRITERS)
        self._ready: dict[str, dict[str, str]] = {}
        self._by_address: dict[str, Worker] = {}
        self._server: uvicorn.Server | None = None
        self._serving: threading.Thread | None = None

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def metadata(self) -> list[dict[str, Any]]:
        """Names, uids and annotations of the pods, without the rest."""
        kind = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        answer = self.api.http.get(self.path, params={"labelSelector": "w"}, headers={"accept": kind})
        return [item["metadata"] for item in answer.raise_for_status().json()["items"] or ()]

    def pods(self) -> list[dict[str, Any]]:
        return [{"metadata": each} for each in self.metadata() if "deletionTimestamp" not in each]

    def deploy(self, replicas: int, *, name: str = "workers") -> None:
        labels = {"app.kubernetes.io/part-of": "sn17", "app.kubernetes.io/instance": "t", "w": name}
        # Nothing schedules them: the scheduler's attempts at a thousand pods are not what is looked at.
        spec = {"schedulerName": "none", "containers": [{"name": "trellis", "image": "none"}]}
        self.cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"w": name}},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            },
            namespace=self.namespace,
        )
        wait_for("pods", lambda: len(self.metadata()) >= replicas, 240)
        self.adopt()
        wait_for("the rollout", lambda: self._rolled_out(name, replicas), 120)

    def adopt(self) -> None:
        for index, pod in enumerate(sorted(self.metadata(), key=lambda each: str(each["name"]))):
            name = pod["name"]
            address = f"127.{self._net}.{index // 250}.{index % 250 + 2}"
            worker = Worker(address, self.port, gaussians=300_000.0 + 1_000 * (index % 100))
            worker.on_exit = lambda name=name: self.restarted(name)  # type: ignore[misc]
            self.workers[name] = self._by_address[address] = worker
            self._uids[name], self._restarts[name] = pod["uid"], 0
        self._serve()
        list(self._pool.map(self.report, self.workers))
        self.prometheus.scrape(
            [
                (f"{w.address}:{w.port}", {"pod_uid": self._uids[n], "pod": n, "node": "n1"})
                for n, w in self.workers.items()
            ]
        )

    def report(self, name: str, **change: Any) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        restarts = self._restarts[name]
        self._ready[name] = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        ended = {"reason": "Completed", "exitCode": 75, "finishedAt": now, "startedAt": now}
        container = {
            "name": "trellis",
            "image": "none",
            "imageID": "none",
            "ready": True,
            "restartCount": restarts,
            "containerID": f"containerd://{name}-{restarts}",
            "state": {"running": {"startedAt": now}},
            "lastState": {"terminated": ended} if restarts else {},
        }
        status = {
            "phase": "Running",
            "podIP": self.workers[name].address,
            "podIPs": [{"ip": self.workers[name].address}],
            "startTime": now,
            "conditions": [self._ready[name]],
            "containerStatuses": [container],
        }
        self.api.patch(f"{self.path}/{name}/status", {"status": status})

    def restarted(self, name: str) -> None:
        self._restarts[name] += 1
        self._pool.submit(self.report, name)

    def touch(self, name: str) -> None:
        """Change a pod in a way that says nothing: the kind of change kubelet makes many of."""
        message = {"type": "Note", "status": "True", "message": str(time.time())}
        self.api.patch(
            f"{self.path}/{name}/status",
            {"status": {"conditions": [self._ready[name], message]}},
        )

    def close(self) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            self._serving.join()
        self._pool.shutdown()
        self.api.close()

    # --- the workers' ports ---------------------------------------------------------------------------

    def _serve(self) -> None:
        sockets = []
        for worker in self.workers.values():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((worker.address, worker.port))
            sockets.append(listener)
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            log_level="error",
            access_log=False,
            timeout_keep_alive=75,
        )
        self._server = server = uvicorn.Server(config)
        self._serving = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=sockets)), daemon=True
        )
        self._serving.start()
        wait_for("the workers' ports", lambda: server.started, 60)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        worker = self._by_address[scope["server"][0]]
        status, body, kind = 200, b"", b"application/json"
        if scope["method"] == "GET":
            body, kind = worker.metrics().encode(), b"text/plain; version=0.0.4"
        elif dict(scope["headers"]).get(b"authorization") != f"Bearer {TOKEN}".encode():
            status = 401
        else:
            content = bytearray()
            while (part := await receive())["type"] == "http.request":
                content += part.get("body", b"")
                if not part.get("more_body"):
                    break
            asked = json.loads(content or b"null") or {}
            status, answer = worker.admin(scope["path"].rsplit("/", 1)[-1], asked)
            body = json.dumps(answer).encode()
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod's intent as the watch told of it: None when it went."""

    at: float
    pod: str
    intent: dict[str, Any] | None


class IntentWatch:
    """Every change of an intent in a namespace, with the time it was seen."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._known: dict[str, str | None] = {}
        self.seen: list[Seen] = []
        self._thread.start()

    def held(self) -> int:
        """Pods that have an intent now."""
        return sum(1 for note in self._known.values() if note)

    def begun(self, since: float = 0.0) -> list[Seen]:
        """The first sight of each remediation, in order."""
        first: dict[str, Seen] = {}
        starts: list[Seen] = []
        for each in list(self.seen):
            if each.intent is None:
                first.pop(each.pod, None)
            elif each.pod not in first:
                first[each.pod] = each
                if each.at >= since:
                    starts.append(each)
        return starts

    def most(self, since: float = 0.0) -> int:
        """The greatest number of pods that had an intent at the same time."""
        held: set[str] = set()
        most = 0
        for each in list(self.seen):
            (held.add if each.intent is not None else held.discard)(each.pod)
            if each.at >= since:
                most = max(most, len(held))
        return most

    def _follow(self) -> None:
        api, params = self._crowd.api.http, {"watch": "1", "labelSelector": "w"}
        while not self._stop.is_set():
            with (
                contextlib.suppress(httpx2.HTTPError, RuntimeError),
                api.stream("GET", self._crowd.path, params=params, timeout=None) as answer,
            ):
                for line in answer.iter_lines():
                    if self._stop.is_set():
                        return
                    self._take(json.loads(line)["object"]["metadata"])

    def _take(self, meta: dict[str, Any]) -> None:
        name, text = meta["name"], (meta.get("annotations") or {}).get(INTENT)
        if self._known.get(name) != text:
            self._known[name] = text
            self.seen.append(Seen(time.time(), name, json.loads(text) if text else None))

    def stop(self) -> None:
        """Ends with the next change that is seen, or with the process."""
        self._stop.set()


class CountingProxy:
    """A TCP relay on loopback in front of the API server that counts what goes through, TLS and all."""

    def __init__(self, server: str) -> None:
        self._target = int(server.rsplit(":", 1)[1])
        self.bytes: collections.Counter[str] = collections.Counter()
        self._ready = threading.Event()
        self.port = 0
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        self._ready.wait(10)

    async def _run(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)

        async def pump(name: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    self.bytes[name] += len(data)
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump("sent", reader, back), pump("received", there, writer))

    def redirect(self, kubeconfig: Path) -> None:
        """Have a kubeconfig lead through here."""
        config = yaml.safe_load(kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        kubeconfig.write_text(yaml.safe_dump(config))


def audited(path: Path, since: float, until: float, user: str) -> Iterator[dict[str, Any]]:
    """Requests of one user within a time, from the API server's audit log."""
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp()
            stage = "ResponseStarted" if entry["verb"] == "watch" else "ResponseComplete"
            own = entry["user"]["username"].endswith(f":{user}")
            if own and stage == entry["stage"] and since <= at < until:
                yield entry
