import json
import os
import stat

import pytest
from bittensor_wallet import Keypair
from sn17_protocol.wallet import WalletError, load_hotkey, write_hotkey

MNEMONIC = Keypair.generate_mnemonic()
KEYPAIR = Keypair.create_from_mnemonic(MNEMONIC)


@pytest.fixture
def hotkey_file(tmp_path):
    path = tmp_path / "hot"
    write_hotkey(path, KEYPAIR)
    return path


def rewrite(path, change):
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_round_trip_can_sign_and_is_private(hotkey_file):
    loaded = load_hotkey(hotkey_file)
    assert loaded.ss58_address == KEYPAIR.ss58_address
    assert KEYPAIR.verify("x", loaded.sign("x"))
    assert stat.S_IMODE(os.stat(hotkey_file).st_mode) == 0o600


def test_a_key_is_never_overwritten(hotkey_file):
    with pytest.raises(WalletError, match="left alone"):
        write_hotkey(hotkey_file, KEYPAIR)


@pytest.mark.parametrize("kept", ["privateKey", "secretSeed", "secretPhrase"])
def test_any_one_secret_is_enough(hotkey_file, kept):
    def drop(fields):
        for name in {"privateKey", "secretSeed", "secretPhrase"} - {kept}:
            fields.pop(name, None)

    if kept == "secretPhrase":
        rewrite(hotkey_file, lambda fields: fields.update(secretPhrase=MNEMONIC))
    rewrite(hotkey_file, drop)
    assert load_hotkey(hotkey_file).ss58_address == KEYPAIR.ss58_address


def test_a_public_key_file_is_refused(hotkey_file):
    rewrite(hotkey_file, lambda f: [f.pop(n, None) for n in ("privateKey", "secretSeed", "secretPhrase")])
    with pytest.raises(WalletError, match="cannot sign"):
        load_hotkey(hotkey_file)


def test_another_address_than_the_secrets_is_refused(hotkey_file):
    rewrite(hotkey_file, lambda f: f.update(ss58Address=Keypair.create_from_uri("//X").ss58_address))
    with pytest.raises(WalletError, match="damaged"):
        load_hotkey(hotkey_file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"{}", b"x" * 70_000])
def test_what_is_no_key_file_is_refused(tmp_path, content):
    path = tmp_path / "hot"
    path.write_bytes(content)
    with pytest.raises(WalletError):
        load_hotkey(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(WalletError, match="cannot read"):
        load_hotkey(tmp_path / "none")


@pytest.mark.parametrize("content", [b"$NACLxxxx", b"$ANSIBLE_VAULT;1.1", b"gAAAAAxx"])
def test_an_encrypted_file_is_refused_without_asking_for_a_password(tmp_path, content):
    path = tmp_path / "hot"
    path.write_bytes(content)
    with pytest.raises(WalletError, match="encrypted"):
        load_hotkey(path)


def test_a_coldkey_is_refused_by_its_name(tmp_path):
    write_hotkey(tmp_path / "coldkey", KEYPAIR)
    with pytest.raises(WalletError, match="coldkey"):
        load_hotkey(tmp_path / "coldkey")


def test_a_mounted_wallet_with_its_coldkey_is_refused(tmp_path):
    (tmp_path / "hotkeys").mkdir()
    write_hotkey(tmp_path / "hotkeys" / "default", KEYPAIR)
    assert load_hotkey(tmp_path / "hotkeys" / "default").ss58_address == KEYPAIR.ss58_address
    (tmp_path / "coldkey").write_bytes(b"$NACL")
    with pytest.raises(WalletError, match="elsewhere"):
        load_hotkey(tmp_path / "hotkeys" / "default")


@pytest.mark.parametrize("name", ["privateKey", "secretSeed", "secretPhrase"])
def test_no_error_quotes_a_secret(hotkey_file, name):
    def spoil(fields):
        for other in ("privateKey", "secretSeed", "secretPhrase"):
            fields.pop(other, None)
        fields[name] = "0xdeadbeefsecret"

    rewrite(hotkey_file, spoil)
    with pytest.raises(WalletError) as caught:
        load_hotkey(hotkey_file)
    assert "deadbeef" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"encoded": "c2VjcmV0", "encoding": {"type": ["scrypt"], "version": "3"}}', "Polkadot"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n", "PEM"),
        (b" ".join([b"secret"] * 12), "recovery phrase"),
        (b"\n", "empty"),
    ],
    ids=["polkadot", "lfs", "pem", "phrase", "empty"],
)
def test_what_stands_in_place_of_a_hotkey_is_named_and_never_quoted(tmp_path, content, said):
    path = tmp_path / "hotkey"
    path.write_bytes(content)
    with pytest.raises(WalletError, match=said) as told:
        load_hotkey(path)
    assert str(path) in str(told.value)
    assert "secret" not in str(told.value)
    assert "c2VjcmV0" not in str(told.value)
