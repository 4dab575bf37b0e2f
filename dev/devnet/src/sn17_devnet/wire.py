"""What a validator's axon does with a call before and after its handler, answer by answer as the real one."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bittensor_wallet import Keypair
from pydantic import ValidationError
from sn17_protocol import SYNAPSES, Synapse, TerminalInfo
from sn17_protocol.transport import EMPTY_BODY_HASH, TransportError, TransportHeaders

AXON_VERSION: Final = 9_009_000


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and JSON body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def kind_of(path: str) -> type[Synapse]:
    """The call that a URL path names.

    Raises:
        TransportError: 404.
    """
    name = path.split("/")[1] if "/" in path else ""
    kind = SYNAPSES.get(name)
    if kind is None:
        raise TransportError(
            404, f"Synapse name '{name[:64]}' not found. Available synapses {list(SYNAPSES)}"
        )
    return kind


def internal_error() -> TransportError:
    """What any exception in a handler becomes: the caller learns nothing but a number."""
    return TransportError(500, f"Internal Server Error #{uuid.uuid4()}")


def read_body(kind: type[Synapse], content_type: str, body: bytes, headers: TransportHeaders) -> Synapse:
    """The call's body.

    Raises:
        TransportError: 400 for bytes that are no text, 422 for text that is no JSON, and 500 for whatever
        else is wrong: no JSON content type, fields missing or of a wrong type, a body hash that does not fit.
    """
    main = content_type.split(";")[0].strip().lower()
    if main != "application/json" and not (main.startswith("application/") and main.endswith("+json")):
        raise internal_error()
    if body == b"":
        raise internal_error()
    try:
        fields = json.loads(body)
    except UnicodeDecodeError as error:
        raise TransportError(400, "There was an error parsing the body") from error
    except RecursionError as error:
        raise internal_error() from error
    except ValueError as error:
        raise TransportError(422, "JSON decode error") from error
    if isinstance(fields, dict):
        fields["name"] = kind.__name__
    try:
        synapse = kind.model_validate(fields)
    except ValidationError as error:
        raise internal_error() from error
    if headers.computed_body_hash != EMPTY_BODY_HASH:
        raise internal_error()
    return synapse


def success(synapse: Synapse, *, process_time: float) -> Answer:
    """The answer of a handler. A status that the caller wrote into ``axon`` is believed, as everything
    there is.

    Raises:
        TransportError: 500, for a body that cannot be told in headers.
    """
    axon = synapse.axon or TerminalInfo()
    status = 200 if axon.status_code is None else axon.status_code
    message = axon.status_message or ("Success" if status == 200 else None)
    update = {"status_code": status, "status_message": message, "process_time": process_time}
    answered = synapse.model_copy(update={"axon": axon.model_copy(update=update)})
    headers = _headers(answered)
    if not 200 <= status <= 599 or not all(_sendable(value) for value in headers.values()):
        raise internal_error()
    return Answer(status, headers, answered.model_dump_json().encode())


def failure(
    error: TransportError,
    headers: TransportHeaders | None,
    *,
    keypair: Keypair,
    now_ns: int,
    process_time: float,
) -> Answer:
    """The answer to a call that failed."""
    if headers is None:
        synapse = Synapse(axon=TerminalInfo(status_code=error.status, status_message=error.message))
    else:
        axon = headers.axon.model_copy(
            update={
                "status_code": error.status,
                "status_message": error.message,
                "process_time": process_time,
                "version": AXON_VERSION,
                "nonce": now_ns,
                "uuid": str(uuid.uuid1()),
            }
        )
        text = f"{axon.nonce}.{headers.dendrite.hotkey}.{axon.hotkey}.{axon.uuid}"
        axon = axon.model_copy(update={"signature": f"0x{keypair.sign(text).hex()}"})
        synapse = Synapse(name=headers.name, timeout=headers.timeout, axon=axon, dendrite=headers.dendrite)
    told = {name: value for name, value in _headers(synapse).items() if _sendable(value)}
    return Answer(error.status, told, json.dumps({"message": error.message}).encode())


def _headers(synapse: Synapse) -> dict[str, str]:
    headers = {"name": str(synapse.name), "timeout": str(synapse.timeout)}
    for prefix, info in (("axon", synapse.axon), ("dendrite", synapse.dendrite)):
        if info is not None:
            known: Mapping[str, Any] = info.model_dump(exclude_none=True)
            headers |= {f"bt_header_{prefix}_{name}": str(value) for name, value in known.items()}
    headers["header_size"] = str(sys.getsizeof(headers))
    headers["total_size"] = str(synapse.total_size or 0)
    headers["computed_body_hash"] = EMPTY_BODY_HASH
    return headers


def _sendable(value: str) -> bool:
    return len(value) <= 4096 and value.isprintable() and all(ord(character) < 256 for character in value)
