"""A hotkey file as the manifest of a Kubernetes Secret."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sn17_contract.kubernetes import LABEL_COMPONENT, LABEL_PART_OF, PART_OF
from sn17_protocol.wallet import WalletError, load_hotkey

DEFAULT_WALLETS: Final = Path("~/.bittensor/wallets")
_NAME: Final = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
_PUBLIC: Final = ("accountId", "publicKey", "ss58Address", "cryptoType")
_SECRETS: Final = ("privateKey", "secretSeed", "secretPhrase")


@dataclass(frozen=True, slots=True)
class HotkeySecret:
    """The manifest and the address it signs for."""

    manifest: dict[str, Any]
    address: str


def hotkey_path(wallet: str, hotkey: str, folder: Path = DEFAULT_WALLETS) -> Path:
    """Where btcli keeps a hotkey."""
    return folder.expanduser() / wallet / "hotkeys" / hotkey


def hotkey_secret(
    path: Path, *, name: str, key: str = "hotkey", namespace: str | None = None
) -> HotkeySecret:
    """The Secret that the miner mounts. Only the hotkey's file is read, one form of its secret is kept.

    Raises:
        WalletError: no usable hotkey, or ``name`` is no name of an object.
    """
    if not _NAME.match(name):
        raise WalletError(f"{name!r} is no name of a Secret: lower-case letters, digits, '-' and '.' only")
    if path.name in ("coldkey", "coldkeypub.txt"):
        raise WalletError(f"{path} is a coldkey: name a hotkey; the coldkey stays off the cluster")
    if not path.is_file():
        raise WalletError(f"there is no hotkey at {path}: name the wallet's folder with --path, or the file")
    with tempfile.TemporaryDirectory() as alone:
        # A wallet's hotkey lies beside its coldkey, which a miner's machine must not hold, so load_hotkey
        # refuses such a folder; here it is shown the hotkey alone.
        link = Path(alone) / "hotkey"
        link.symlink_to(path.resolve())
        try:
            address = load_hotkey(link).ss58_address
        except WalletError as error:
            # The link is a file of ours: people are told about the one that they named.
            raise WalletError(str(error).replace(str(link), str(path))) from None
    fields = json.loads(path.read_bytes())
    secret = next(field for field in _SECRETS if fields.get(field))
    kept = {field: fields[field] for field in (*_PUBLIC, secret) if fields.get(field) is not None}
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {LABEL_PART_OF: PART_OF, LABEL_COMPONENT: "miner"},
        "annotations": {"sn17.io/hotkey-address": address},
    }
    if namespace:
        metadata["namespace"] = namespace
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": {key: base64.b64encode(json.dumps(kept).encode()).decode()},
    }
    return HotkeySecret(manifest, address)
