"""Requests that are nearly right: JSON, multipart, queries and headers after one to four changes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway_client import FleetWorker, splat_bytes
from gateway_pictures import jpeg, png, webp
from gateway_process import GUEST

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**32, 2**64, -(2**63) - 1, 1.0, 1e308, "", "0", "\0", "a" * 400, "a" * 5000,
    "\ud7ff", "null", [], {}, [[]], {"a": {"a": {}}}, ["404-3dgs"], ["404-3dgs"] * 500, "404-mesh",
)  # fmt: skip
_PIECES = (
    b"\r\n", b"--", b"\0", b"\xff\xfe", b'"', b";", b"=", b"filename=", b"NaN", b"1e999", b"[" * 60,
    b"Content-Disposition: form-data; name=\"asset\"\r\n\r\n", f"--{BOUNDARY}--\r\n".encode(),
    f"--{BOUNDARY}\r\n".encode(), b"\\ud800", b"name*=utf-8''x",
)  # fmt: skip


@dataclass
class Call:
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, bytes] = field(default_factory=dict)


def form(parts: list[tuple[str, bytes]]) -> bytes:
    lines = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (BOUNDARY.encode(), name.encode(), value)
        for name, value in parts
    ]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def calls(worker: FleetWorker, offer: dict[str, Any]) -> list[Call]:
    """Right ones; the signature is fresh at the time of the call."""
    as_json = {"content-type": b"application/json", "x-api-key": GUEST.encode()}
    as_form = {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}".encode(), "x-api-key": GUEST.encode(),
    }  # fmt: skip
    wish = {"prompt": "a red robot", "model": "404-3dgs", "seed": 5, "model_params": {"a": [1, None]}}
    pull = {**worker.signed(), "requested_task_count": 1, "model": ["404-3dgs"], "worker_tags": ["a"]}
    head = [(name, value.encode()) for name, value in worker.head(offer["id"])]
    token = ("assignment_token", offer["assignment_token"].encode())
    failure = [(name, value.encode()) for name, value in worker.head(offer["id"], "failure")]
    return [
        Call("POST", "/add_task", json.dumps(wish).encode(), as_json),
        Call("POST", "/add_task", form([("prompt", b"a red robot"), ("seed", b" 7 ")]), as_form),
        Call("POST", "/add_task", form([("image", png(9, 9)), ("model_params", b"{}")]), as_form),
        Call("POST", "/add_task", form([("image", jpeg(9, 9))]), as_form),
        Call("POST", "/add_task", form([("image", webp(9, 9))]), as_form),
        Call("GET", f"/get_status?id={offer['id']}", b"", as_json),
        Call("GET", f"/get_result?id={offer['id']}&compress=0&format=ply&all=true", b"", as_json),
        Call("POST", "/get_tasks", json.dumps(pull).encode(), as_json),
        Call("POST", "/add_result", form([*head, token, ("asset", splat_bytes(n=8))]), as_form),
        Call("POST", "/add_result", form([*failure, ("reason", b"no")]), as_form),
        Call("GET", "/id"),
    ]


def mutations(rights: list[Call], rng: random.Random) -> Iterator[Call]:
    """Endless; each call of ``rights`` in turn."""
    while True:
        for right in rights:
            call = Call(right.method, right.path, right.body, dict(right.headers))
            for _ in range(rng.randint(1, 4)):
                _change(call, rng)
            yield call


def _change(call: Call, rng: random.Random) -> None:
    kind = rng.random()
    if kind < 0.3 and call.headers.get("content-type") == b"application/json" and call.body:
        call.body = _changed_json(call.body, rng)
    elif kind < 0.75 and call.body:
        call.body = _changed_bytes(call.body, rng)
    elif kind < 0.85 and call.headers:
        name = rng.choice(sorted(call.headers))
        value = _changed_bytes(call.headers[name], rng)
        call.headers[name] = bytes(byte for byte in value if byte > 31 and byte != 127).strip()
    elif kind < 0.9:
        call.method = rng.choice(("GET", "POST", "PUT", "DELETE", "PATCH"))
    else:
        path = _changed_bytes(call.path.encode(), rng)
        call.path = "/" + "".join(chr(byte) for byte in path if 33 <= byte < 127 and byte != 35).lstrip("/")


def _changed_json(body: bytes, rng: random.Random) -> bytes:
    try:
        fields = json.loads(body)
    except ValueError:
        return body
    if not isinstance(fields, dict) or not fields:
        return body
    name = rng.choice(sorted(fields))
    match rng.randrange(3):
        case 0:
            fields[name] = rng.choice(_VALUES)
        case 1:
            del fields[name]
        case 2:
            fields[rng.choice((name, "validator_hotkey", "image", "x" * 99))] = rng.choice(_VALUES)
    return json.dumps(fields).encode()


def _changed_bytes(content: bytes, rng: random.Random) -> bytes:
    changed, at = bytearray(content), rng.randrange(len(content) + 1)
    match rng.randrange(6):
        case 0 if content:
            changed[at % len(content)] ^= 1 << rng.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            del changed[at : at + rng.randint(1, 40)]
        case 3:
            changed[at:at] = rng.choice(_PIECES)
        case 4:
            changed[at:at] = changed[at : at + rng.randint(1, 80)]
        case _:
            changed[at:at] = rng.randbytes(rng.randint(1, 16))
    return bytes(changed)
