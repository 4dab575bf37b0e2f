import base64

import pytest
from bittensor_wallet import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_protocol.signing import ResultSignatureError, result_message, sign_result, verify_result

MINER = Keypair.create_from_uri("//Miner")
VALIDATOR = Keypair.create_from_uri("//Validator").ss58_address


def check(signature, **changes):
    values = {
        "submit_time": 7,
        "prompt": "a red torus",
        "validator_hotkey": VALIDATOR,
        "miner_hotkey": MINER.ss58_address,
    } | changes
    return verify_result(signature, **values)


def good():
    return sign_result(MINER, submit_time=7, prompt="a red torus", validator_hotkey=VALIDATOR)


def test_signature_is_88_characters_and_verifies():
    assert len(good()) == 88
    assert check(good())


@pytest.mark.parametrize(
    "change",
    [
        {"submit_time": 8},
        {"prompt": "a red torus."},
        {"validator_hotkey": MINER.ss58_address},
        {"miner_hotkey": VALIDATOR},
    ],
)
def test_every_part_is_covered(change):
    assert not check(good(), **change)


def test_message_has_no_separators():
    assert result_message(7, "p", "v", "m").endswith("its end users7pvm")
    assert result_message(7, "p", "v", "m").startswith("I, as a miner on SN17, have obtained all licenses")


@pytest.mark.parametrize("signature", ["", "!", "c2ln", base64.b64encode(b"x" * 63).decode(), "ü" * 88])
def test_what_is_no_signature_raises(signature):
    with pytest.raises(ResultSignatureError):
        check(signature)


def test_a_well_formed_wrong_signature_is_just_wrong():
    assert not check(base64.b64encode(bytes(64)).decode())


def test_a_signer_that_is_no_address_raises():
    with pytest.raises(ResultSignatureError):
        check(good(), miner_hotkey="nobody")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=2000), st.integers(min_value=0, max_value=2**63))
def test_any_prompt_round_trips(prompt, submit_time):
    signature = sign_result(MINER, submit_time=submit_time, prompt=prompt, validator_hotkey=VALIDATOR)
    assert check(signature, prompt=prompt, submit_time=submit_time)
