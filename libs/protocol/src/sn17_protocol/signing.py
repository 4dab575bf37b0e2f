"""The signature a miner puts on a result."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from bittensor_wallet import Keypair

DECLARATION: Final = (
    "I, as a miner on SN17, have obtained all licenses, rights and consents required to use, reproduce, "
    "modify, display, distribute and make available my submitted results to this subnet and its end users"
)
SIGNATURE_BYTES: Final = 64


class ResultSignatureError(ValueError):
    """The signature is not base64 of 64 bytes, or the signer is no address.

    Validators fail with a server error on such a submission (the task stays assigned and nothing is charged),
    where a well-formed wrong signature is penalised: the two must not be mixed up.
    """


def result_message(submit_time: int, prompt: str, validator_hotkey: str, miner_hotkey: str) -> str:
    """The text that is signed. ``submit_time`` in nanoseconds; ``prompt`` in full, an image's base64
    included.
    """
    return f"{DECLARATION}{submit_time}{prompt}{validator_hotkey}{miner_hotkey}"


def sign_result(keypair: Keypair, *, submit_time: int, prompt: str, validator_hotkey: str) -> str:
    """Sign a result with the miner's hotkey; base64, 88 characters."""
    message = result_message(submit_time, prompt, validator_hotkey, keypair.ss58_address)
    return base64.b64encode(keypair.sign(message)).decode()


def verify_result(
    signature: str, *, submit_time: int, prompt: str, validator_hotkey: str, miner_hotkey: str
) -> bool:
    """Whether ``signature`` is the miner's over this result.

    Raises:
        ResultSignatureError: where a validator's own check raises instead of saying no.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ResultSignatureError("signature is not base64") from error
    if len(raw) != SIGNATURE_BYTES:
        raise ResultSignatureError(f"signature has {len(raw)} bytes, not {SIGNATURE_BYTES}")
    try:
        keypair = Keypair(ss58_address=miner_hotkey)
    except ValueError as error:
        raise ResultSignatureError("the miner's hotkey is not an SS58 address") from error
    return keypair.verify(result_message(submit_time, prompt, validator_hotkey, miner_hotkey), raw)
