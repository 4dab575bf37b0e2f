"""``python -m sn17_devnet.gateway`` as a process: where it is, what it tells, what it can be told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gateway_client import Client, FleetWorker, splat_bytes
from sn17_contract.local_network import GATEWAYS_FILE, GatewayTask, LocalGateways
from sn17_http import own_client, own_request

DEADLINE = 60.0


def test_described_ordered_about_and_ended(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SN17_")}
    settings = {
        "SN17_STATE_DIR": str(tmp_path), "SN17_READY_FILE": str(tmp_path / "ready.json"),
        "SN17_OPS_PORT": "0", "SN17_NODES": "2", "SN17_SLOTS": "1", "SN17_LOG_LEVEL": "WARNING",
        "SN17_DIE_WITH_PARENT": "true",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "sn17_devnet.gateway"], env={**kept, **settings})
    try:
        end = time.monotonic() + DEADLINE
        while not (tmp_path / "ready.json").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        file = tmp_path / GATEWAYS_FILE
        described = LocalGateways.parse(file.read_bytes(), file)
        node = described.nodes[0].url
        client, worker = Client(node, described.generic_key), FleetWorker(node)
        task = client.task()
        (offer,) = worker.pull()
        assert worker.deliver(offer, splat_bytes()).status_code == 200
        control = own_client(base_url=described.control_url, timeout=DEADLINE)
        (told,) = [GatewayTask.model_validate(item) for item in control.get("/tasks").json()]
        assert (told.id, told.status, told.hotkeys, told.successes) == (task, "Success", (worker.hotkey,), 1)
        rule = {"kind": "status", "route": "/id", "status": 503}
        assert control.put("/faults", json=[rule]).status_code == 200
        assert own_request("GET", f"{node}/id", timeout=DEADLINE).status_code == 503
        assert control.put("/faults", json=[{"kind": "nothing"}]).status_code == 422
        assert control.post("/nodes/0/restart", json={"seconds": 0}).status_code == 202
        assert control.post("/nodes/7/restart", json={}).status_code == 404
        while not all(item["up"] for item in control.get("/gateways").json()["nodes"]) or (
            client.result(task).status_code != 404
        ):
            assert time.monotonic() < end
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert json.loads(file.read_text())["schema"] == "sn17.local-gateways/v1"
    finally:
        process.kill()
        process.wait()
