"""`sn17 wallet secret`: the hotkey and nothing else."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from bittensor_wallet import Keypair
from sn17.commands import app
from sn17.wallet.secret import hotkey_secret
from sn17_protocol.wallet import WalletError, load_hotkey, write_hotkey
from typer.testing import CliRunner

MNEMONIC = "coldkey words that must never leave this machine"


@pytest.fixture
def wallets(tmp_path: Path) -> Path:
    """A wallet as btcli lays it out, the coldkey beside the hotkeys."""
    hotkeys = tmp_path / "mine" / "hotkeys"
    hotkeys.mkdir(parents=True)
    (tmp_path / "mine" / "coldkey").write_text(json.dumps({"secretPhrase": MNEMONIC}))
    write_hotkey(hotkeys / "first", Keypair.create_from_mnemonic(Keypair.generate_mnemonic()))
    return tmp_path


def test_the_manifest_holds_the_hotkey_alone(wallets: Path, tmp_path: Path) -> None:
    arguments = ["wallet", "secret", "--path", str(wallets), "--wallet", "mine", "--hotkey", "first"]
    answer = CliRunner().invoke(app, [*arguments, "-n", "mining"])
    assert answer.exit_code == 0, answer.output
    manifest = json.loads(answer.stdout)
    assert manifest["kind"] == "Secret"
    assert manifest["metadata"]["name"] == "sn17-hotkey"
    assert manifest["metadata"]["namespace"] == "mining"
    assert list(manifest["data"]) == ["hotkey"]
    content = base64.b64decode(manifest["data"]["hotkey"])
    assert MNEMONIC.encode() not in content
    mounted = tmp_path / "hotkey"
    mounted.write_bytes(content)
    address = load_hotkey(mounted).ss58_address
    assert manifest["metadata"]["annotations"]["sn17.io/hotkey-address"] == address
    assert address in answer.stderr


def test_one_form_of_the_secret_is_enough(wallets: Path) -> None:
    path = wallets / "mine" / "hotkeys" / "first"
    fields = json.loads(path.read_text())
    seed = "0x" + "11" * 32
    keypair = Keypair.create_from_seed(seed)
    path.write_text(
        json.dumps({**fields, "secretSeed": seed, "ss58Address": keypair.ss58_address, "privateKey": None})
    )
    made = hotkey_secret(path, name="x")
    kept = json.loads(base64.b64decode(made.manifest["data"]["hotkey"]))
    assert "secretSeed" in kept
    assert "secretPhrase" not in kept


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        ("coldkey", "x", "coldkey"),
        ("hotkeys/none", "x", "there is no hotkey"),
        ("hotkeys/first", "Not_A_Name", "no name of a Secret"),
    ],
)
def test_refuses_what_must_not_be(wallets: Path, file: str, name: str, said: str) -> None:
    with pytest.raises(WalletError, match=said):
        hotkey_secret(wallets / "mine" / file, name=name)


def test_an_encrypted_or_public_key_is_refused_without_quoting_it(wallets: Path) -> None:
    path = wallets / "mine" / "hotkeys" / "first"
    path.write_bytes(b"$NACL secret bytes")
    answer = CliRunner().invoke(app, ["wallet", "secret", "--file", str(path)])
    assert answer.exit_code == 2
    assert "secret bytes" not in answer.output
    assert "encrypted" in answer.output


def test_an_error_names_the_file_that_was_given(tmp_path: Path) -> None:
    """Not a temporary one that is gone when the message is read."""
    path = tmp_path / "export.json"
    path.write_text('{"encoded": "c2VjcmV0", "encoding": {"version": "3"}}')
    with pytest.raises(WalletError, match="Polkadot") as told:
        hotkey_secret(path, name="sn17-hotkey")
    assert str(told.value).startswith(str(path))
