"""``python -m sn17_devnet`` as a process of its own, and a miner's way to talk to it."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

from sn17_http import own_client, own_request
from sn17_protocol import PullTask, SubmitResults
from sn17_protocol.signing import sign_result
from sn17_protocol.transport import build_request, read_response
from sn17_protocol.wallet import load_hotkey


class Devnet:
    def __init__(self, folder, **settings):
        self.folder = Path(folder)
        self.state = self.folder / "state"
        self.ready = self.folder / "ready.json"
        self.ready.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SN17_")}
        environment = kept | {
            "SN17_STATE_DIR": str(self.state),
            "SN17_READY_FILE": str(self.ready),
            "SN17_OPS_PORT": "0",
            **settings,
        }
        self.log = self.folder / "log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sn17_devnet"], env=environment, stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while not self.ready.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise RuntimeError(self.log.read_text())
            time.sleep(0.02)
        self.info = json.loads((self.state / "devnet.json").read_text())
        self.http = own_client(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    @property
    def url(self):
        return self.info["snapshot_url"].removesuffix("/snapshot")

    @property
    def validators(self):
        return self.info["validators"]

    @property
    def keypair(self):
        return load_hotkey(self.state / "miner_hotkey.json")

    def get(self, path):
        return self.http.get(self.url + path).raise_for_status().json()

    def ledger(self, index=0):
        return self.get("/ledger")["validators"][index]

    def resident_bytes(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def request(self, message, index=0, keypair=None):
        validator = self.validators[index]
        return build_request(
            message,
            keypair=keypair or self.keypair,
            validator_hotkey=validator["hotkey"],
            ip=validator["ip"],
            port=validator["port"],
            timeout=12.0,
            nonce_ns=time.time_ns(),
            uuid=str(uuid.uuid4()),
        )

    def call(self, message, index=0, keypair=None):
        request = self.request(message, index, keypair)
        answer = own_request(
            "POST",
            self.validators[index]["url"] + request.path,
            headers=request.headers,
            content=request.body,
            timeout=60,
        )
        return read_response(type(message), answer.status_code, answer.content)

    def pull(self, index=0, keypair=None):
        return self.call(PullTask(), index, keypair)

    def submit(self, task, results, index=0, keypair=None):
        submit_time = time.time_ns()
        signature = sign_result(
            keypair or self.keypair,
            submit_time=submit_time,
            prompt=task.prompt,
            validator_hotkey=self.validators[index]["hotkey"],
        )
        return self.call(
            SubmitResults(task_id=task.id, results=results, submit_time=submit_time, signature=signature),
            index,
            keypair,
        )


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def mutations(request, rng: random.Random):
    """One call, spoilt somewhere: headers dropped, swapped, overwritten; bytes of the body flipped or cut."""
    headers, body = dict(request.headers), bytearray(request.body)
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(sorted(headers) or ["x"])
        match rng.randrange(6):
            case 0:
                headers.pop(name, None)
            case 1:
                headers[name] = "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(0, 2000)))
            case 2:
                headers[name] = headers.get(rng.choice(sorted(headers) or ["x"]), "")
            case 3 if body:
                body[rng.randrange(len(body))] = rng.randrange(256)
            case 4:
                del body[rng.randint(0, len(body)) :]
            case _:
                at = rng.randint(0, len(body))
                body[at:at] = rng.randbytes(rng.randint(1, 500))
    return headers, bytes(body)
