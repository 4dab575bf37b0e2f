"""``sn17 wallet secret``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from sn17_protocol.wallet import WalletError

from sn17.console import say
from sn17.exits import Exit
from sn17.options import Namespace
from sn17.wallet.secret import DEFAULT_WALLETS, hotkey_path, hotkey_secret

app = typer.Typer(name="wallet", help="The hotkey for a cluster, without the coldkey.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Keep `sn17 wallet secret` a sub-command while it is the only one."""


@app.command()
def secret(
    wallet: Annotated[str, typer.Option(help="name of the wallet")] = "default",
    hotkey: Annotated[str, typer.Option(help="name of the hotkey in it")] = "default",
    path: Annotated[Path, typer.Option(help="folder of the wallets")] = DEFAULT_WALLETS,
    file: Annotated[
        Path | None, typer.Option(help="the hotkey file itself, instead of wallet and path")
    ] = None,
    name: Annotated[str, typer.Option(help="name of the Secret")] = "sn17-hotkey",
    key: Annotated[str, typer.Option(help="key in the Secret")] = "hotkey",
    namespace: Namespace = None,
    show: Annotated[bool, typer.Option(help="print it even to a terminal")] = False,
) -> None:
    """Print the manifest of the hotkey's Secret, to be piped into ``kubectl apply -f -``."""
    if sys.stdout.isatty() and not show:
        typer.echo(
            "this prints a secret: pipe it into `kubectl apply -f -`, or add --show to see it here", err=True
        )
        raise typer.Exit(Exit.CANNOT)
    try:
        made = hotkey_secret(
            file or hotkey_path(wallet, hotkey, path), name=name, key=key, namespace=namespace
        )
    except WalletError as error:
        say(f"sn17 wallet secret: {error}", error=True)
        raise typer.Exit(Exit.CANNOT) from None
    typer.echo(f"hotkey {made.address} as Secret {name}", err=True)
    typer.echo(json.dumps(made.manifest, indent=2))
