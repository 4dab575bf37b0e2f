"""The envelope of every call: headers signed by the caller's hotkey, and the rules by which they are
believed.

The signature covers who calls whom, when, and a hash of no field at all: none of the three calls names
fields to hash, so the body is not covered. Validators act on the identity written in the body; see
``build_request``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from bittensor_wallet import Keypair
from pydantic import ValidationError

from sn17_protocol.models import SYNAPSES, Synapse, TerminalInfo

EMPTY_BODY_HASH: Final = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"
"""SHA3-256 of nothing: the body hash of every call of this subnet."""

WIRE_VERSION: Final = 9_009_000
"""``bt_header_dendrite_version`` of the release the subnet's validators run (9.9.0)."""

NONCE_RULE_SINCE: Final = 7_002_000
"""From this version on the first nonce of a caller must be recent."""

NONCE_GRACE_NS: Final = 4_000_000_000
"""How much older than the call's own timeout a first nonce may be."""

_AXON: Final = "bt_header_axon_"
_DENDRITE: Final = "bt_header_dendrite_"
_INPUT: Final = "bt_header_input_obj_"
_EMPTY_VALUES: Final[dict[Any, str]] = {
    str: base64.b64encode(b'""').decode(),
    int: base64.b64encode(b"0").decode(),
}


S = TypeVar("S", bound=Synapse)


class TransportError(Exception):
    """A call that failed as a whole, with the HTTP status the wire gives it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A call ready to be sent: POST ``body`` with ``headers`` to ``http://ip:port`` + ``path``."""

    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransportHeaders:
    """What the headers of a call say; nothing of it is verified yet."""

    name: str | None
    timeout: float
    axon: TerminalInfo
    dendrite: TerminalInfo
    computed_body_hash: str | None
    input_objects: Mapping[str, Any]


def signed_text(*, nonce_ns: int, hotkey: str, validator_hotkey: str, uuid: str, body_hash: str) -> str:
    """The text under the transport signature."""
    return f"{nonce_ns}.{hotkey}.{validator_hotkey}.{uuid}.{body_hash}"


def request_headers(
    *,
    keypair: Keypair,
    synapse: str,
    validator_hotkey: str,
    ip: str,
    port: int,
    timeout: float,
    nonce_ns: int,
    uuid: str,
    body_size: int = 0,
) -> dict[str, str]:
    """Headers of a call to the validator at ``ip:port``.

    ``synapse`` names the call (``PullTask``); ``timeout`` in seconds widens the window in which the nonce
    counts as recent; ``nonce_ns`` is the time in nanoseconds. Use a fresh ``uuid`` for every call: under
    one uuid calls that overtake each other are refused as replays.
    """
    hotkey = keypair.ss58_address
    text = signed_text(
        nonce_ns=nonce_ns,
        hotkey=hotkey,
        validator_hotkey=validator_hotkey,
        uuid=uuid,
        body_hash=EMPTY_BODY_HASH,
    )
    headers = {
        "name": synapse,
        "timeout": str(float(timeout)),
        f"{_AXON}ip": ip,
        f"{_AXON}port": str(port),
        f"{_AXON}hotkey": validator_hotkey,
        f"{_DENDRITE}ip": "0.0.0.0",
        f"{_DENDRITE}version": str(WIRE_VERSION),
        f"{_DENDRITE}nonce": str(nonce_ns),
        f"{_DENDRITE}uuid": uuid,
        f"{_DENDRITE}hotkey": hotkey,
        f"{_DENDRITE}signature": f"0x{keypair.sign(text).hex()}",
    }
    kind = SYNAPSES[synapse]
    for name in kind.REQUIRED:
        headers[f"{_INPUT}{name}"] = _EMPTY_VALUES[kind.model_fields[name].annotation]
    headers["header_size"] = str(sum(len(key) + len(value) for key, value in headers.items()))
    headers["total_size"] = str(body_size)
    headers["computed_body_hash"] = EMPTY_BODY_HASH
    return headers


def build_request(
    message: Synapse,
    *,
    keypair: Keypair,
    validator_hotkey: str,
    ip: str,
    port: int,
    timeout: float,
    nonce_ns: int,
    uuid: str,
) -> WireRequest:
    """A whole call. The body names caller and validator, since the validator's handler reads them there."""
    name = type(message).__name__
    addressed = message.model_copy(
        update={
            "name": name,
            "timeout": float(timeout),
            "dendrite": TerminalInfo(hotkey=keypair.ss58_address),
            "axon": TerminalInfo(hotkey=validator_hotkey),
            "computed_body_hash": "",
        }
    )
    body = addressed.model_dump_json().encode()
    headers = request_headers(
        keypair=keypair,
        synapse=name,
        validator_hotkey=validator_hotkey,
        ip=ip,
        port=port,
        timeout=timeout,
        nonce_ns=nonce_ns,
        uuid=uuid,
        body_size=len(body),
    )
    # Without a JSON content type the handler gets the body as text and fails with 500.
    headers["Content-Type"] = "application/json"
    return WireRequest(path=f"/{name}", headers=headers, body=body)


def read_response(kind: type[S], status: int, body: bytes) -> S:
    """The answer to a call. Fields that decide nothing are left out where they cannot be read.

    Raises:
        TransportError: any status but 200 (with the validator's message), or 422 for an answer that is no
        ``kind``; the message names the fields that could not be read.
    """
    if status != 200:
        raise TransportError(status, _error_message(body))
    try:
        return _read_tolerantly(kind, body)
    except ValidationError as error:
        named = sorted({_dotted(kind, e["loc"]) for e in error.errors() if kind.decides(e["loc"])})
        raise TransportError(422, f"the answer is no {kind.__name__}: {', '.join(named)}") from error


def _read_tolerantly(kind: type[S], body: bytes) -> S:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        wrong = error.errors()
        if any(kind.decides(e["loc"]) for e in wrong):
            raise
    values: dict[str, Any] = json.loads(body)
    for e in wrong:
        first, *rest = (str(part) for part in e["loc"])
        inside, name = (values[first], rest[0]) if rest and kind.nested(first) else (values, first)
        inside.pop(name, None)
        if inside is values and name in kind.REQUIRED:
            # Ours, sent back: what stands there says nothing.
            values[name] = _EMPTY[kind.model_fields[name].annotation]
    return kind.model_validate(values)


_EMPTY: Final[dict[Any, Any]] = {str: "", int: 0}


def _dotted(kind: type[Synapse], loc: tuple[int | str, ...]) -> str:
    # A union adds the names of its classes to the way to a field.
    parts = [str(part) for part in loc if part not in ("TextTask", "ImageTask")]
    return ".".join(parts) or kind.__name__


def parse_request_headers(headers: Mapping[str, str], kind: type[Synapse] = Synapse) -> TransportHeaders:
    """Read the headers of a call of ``kind``, whatever their case.

    Raises:
        TransportError: 500, as the wire answers, for a number that is none or a required field's dummy that
        is missing or unreadable.
    """
    axon: dict[str, str] = {}
    dendrite: dict[str, str] = {}
    inputs: dict[str, Any] = {}
    plain: dict[str, str] = {}
    for original, value in headers.items():
        key = original.lower()
        if key.startswith(_AXON):
            axon[key.removeprefix(_AXON)] = value
        elif key.startswith(_DENDRITE):
            dendrite[key.removeprefix(_DENDRITE)] = value
        elif key.startswith(_INPUT):
            try:
                inputs[key.removeprefix(_INPUT)] = json.loads(base64.b64decode(value))
            except (binascii.Error, ValueError, RecursionError):
                continue
        else:
            plain[key] = value
    missing = [name for name in kind.REQUIRED if name not in inputs]
    if missing:
        raise TransportError(500, f"missing headers: {', '.join(_INPUT + name for name in missing)}")
    try:
        timeout = float(plain["timeout"]) if "timeout" in plain else 0.0
        return TransportHeaders(
            name=plain.get("name"),
            timeout=timeout,
            axon=TerminalInfo.model_validate(axon),
            dendrite=TerminalInfo.model_validate(dendrite),
            computed_body_hash=plain.get("computed_body_hash"),
            input_objects=inputs,
        )
    except ValueError as error:
        raise TransportError(500, "improperly formatted request headers") from error


class NonceBook:
    """Remembers the last nonce of every caller, and says whether a call is who it claims to be.

    Args:
        clock: nanoseconds since the epoch.
        require_signature: refuse a call without a signature header. Release 9.9 of the transport lets it
        pass, 10.5 refuses it.
        capacity: callers remembered; beyond it the one unheard of for longest is forgotten. The transport
        itself remembers without bound.
    """

    def __init__(
        self, clock: Callable[[], int], *, require_signature: bool = True, capacity: int = 100_000
    ) -> None:
        self._clock = clock
        self._require_signature = require_signature
        self._capacity = capacity
        self._nonces: OrderedDict[tuple[str | None, str | None], int] = OrderedDict()

    @property
    def callers(self) -> int:
        """How many callers are remembered."""
        return len(self._nonces)

    def verify(self, headers: TransportHeaders, axon_hotkey: str) -> None:
        """Check freshness and signature, and remember the nonce.

        Raises:
            TransportError: 401, with the reason.
        """
        caller = headers.dendrite
        try:
            keypair = Keypair(ss58_address=caller.hotkey)
        except ValueError as error:
            raise _unverified(str(error)) from error
        if caller.nonce is None:
            raise _unverified("Missing Nonce")
        key = (caller.hotkey, caller.uuid)
        last = self._nonces.get(key)
        if last is None:
            self._check_age(caller, headers.timeout)
        elif caller.nonce <= last:
            raise _unverified("Nonce is too old, a newer one was last processed")
        if caller.signature or self._require_signature:
            self._check_signature(keypair, headers, axon_hotkey)
        self._nonces[key] = caller.nonce
        self._nonces.move_to_end(key)
        if len(self._nonces) > self._capacity:
            self._nonces.popitem(last=False)

    def _check_age(self, caller: TerminalInfo, timeout: float) -> None:
        if caller.version is None or caller.version < NONCE_RULE_SINCE:
            return
        age = self._clock() - (caller.nonce or 0)
        allowed = NONCE_GRACE_NS + timeout * 1e9
        if age >= allowed:
            raise _unverified(
                f"Nonce is too old: acceptable delta is {allowed / 1e9:.2f} seconds "
                f"but request was {age / 1e9:.2f} seconds old"
            )

    @staticmethod
    def _check_signature(keypair: Keypair, headers: TransportHeaders, axon_hotkey: str) -> None:
        caller = headers.dendrite
        if not caller.signature:
            raise _unverified("Missing Signature")
        text = f"{caller.nonce}.{caller.hotkey}.{axon_hotkey}.{caller.uuid}.{headers.computed_body_hash}"
        try:
            good = keypair.verify(text, caller.signature)
        except ValueError as error:
            raise _unverified(str(error)) from error
        if not good:
            raise _unverified("Signature mismatch")


def _unverified(reason: str) -> TransportError:
    return TransportError(401, f"Not Verified with error: {reason}")


def _error_message(body: bytes) -> str:
    try:
        content = json.loads(body[:65536])
    except (ValueError, RecursionError):
        content = body[:200].decode(errors="replace")
    if isinstance(content, dict):
        content = content.get("message") or content.get("detail")
    return str(content)[:500] if content else "no message"
