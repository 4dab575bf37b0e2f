"""Reads and writes hotkey files. A coldkey never has a place on a machine that mines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from bittensor_wallet import Keyfile, Keypair

MAX_FILE_BYTES: Final = 64 * 1024
_ENCRYPTED_PREFIXES: Final = (b"$NACL", b"$ANSIBLE_VAULT", b"gAAAA")
_COLDKEY_NAMES: Final = ("coldkey", "coldkey.json")


class WalletError(ValueError):
    """A key file cannot or must not be used; the message says what to do and never quotes the file."""


def load_hotkey(path: str | os.PathLike[str]) -> Keypair:
    """Read a hotkey (JSON as btcli writes it) that can sign.

    Raises:
        WalletError: unreadable, encrypted, public only, inconsistent, or a coldkey (by its name, or beside
        it).
    """
    path = Path(path)
    coldkey = find_coldkey(path)
    if coldkey is not None:
        raise WalletError(
            f"{coldkey} is a coldkey: mining needs the hotkey only. Copy the hotkey file alone to this "
            "machine and keep the coldkey elsewhere."
        )
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise WalletError(f"cannot read the hotkey file {path}: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise WalletError(f"{path} is larger than {MAX_FILE_BYTES} bytes: this is no hotkey file")
    if raw.startswith(_ENCRYPTED_PREFIXES):
        raise WalletError(
            f"{path} is encrypted: hotkeys are kept unencrypted, coldkeys are not. Mount the hotkey."
        )
    try:
        fields = json.loads(raw)
    except ValueError as error:
        raise WalletError(f"{path} is not a JSON key file{_instead(raw)}") from error
    if not isinstance(fields, dict):
        raise WalletError(f"{path} is not a JSON key file")
    if "encoded" in fields and "encoding" in fields:
        raise WalletError(
            f"{path} is an export of a Polkadot wallet, encrypted with a password: import it with "
            "`btcli wallet regen-hotkey` and use the file that it writes"
        )
    keypair = _keypair(fields, path)
    address = fields.get("ss58Address")
    if address is not None and address != keypair.ss58_address:
        raise WalletError(f"{path} names another address than its secret belongs to: the file is damaged")
    return keypair


def write_hotkey(path: str | os.PathLike[str], keypair: Keypair) -> None:
    """Write a hotkey in btcli's format, unencrypted, readable by its owner only; never overwrites.

    Raises:
        WalletError: there is a file already.
    """
    path = Path(path)
    if path.exists():
        raise WalletError(f"{path} exists already and is left alone")
    path.parent.mkdir(parents=True, exist_ok=True)
    Keyfile(str(path), path.name).set_keypair(keypair, encrypt=False, overwrite=False)


def find_coldkey(path: str | os.PathLike[str]) -> Path | None:
    """A private coldkey that ``path`` is, or that lies beside it in a wallet's layout."""
    path = Path(path)
    if path.name in _COLDKEY_NAMES:
        return path
    folders = [path.parent]
    if path.parent.name == "hotkeys":
        folders.append(path.parent.parent)
    candidates = (folder / name for folder in folders for name in _COLDKEY_NAMES)
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _instead(raw: bytes) -> str:
    """What stands there, where it is known; never a part of it."""
    if not raw.strip():
        return ": it is empty"
    if raw.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer, fetch the file itself"
    if raw.startswith(b"-----BEGIN"):
        return ": it is a PEM file, as for TLS or SSH"
    if len(raw.split()) in (12, 15, 18, 21, 24) and raw.replace(b" ", b"").strip().isalpha():
        return ": it is a recovery phrase; `btcli wallet regen-hotkey` makes the file from it"
    return ""


def _keypair(fields: dict[str, object], path: Path) -> Keypair:
    makers = (
        ("privateKey", Keypair.create_from_private_key),
        ("secretSeed", _from_seed),
        ("secretPhrase", Keypair.create_from_mnemonic),
    )
    for name, make in makers:
        secret = fields.get(name)
        if isinstance(secret, str) and secret:
            try:
                return make(secret)
            except Exception:  # the library's error would quote the secret
                raise WalletError(f"{path}: its {name} is not a valid secret") from None
    raise WalletError(f"{path} holds no secret: this is a public key file and cannot sign")


def _from_seed(seed: str) -> Keypair:
    # The library's signature says bytes; its code takes the hex text that key files hold.
    return Keypair.create_from_seed(seed)  # type: ignore[arg-type]
