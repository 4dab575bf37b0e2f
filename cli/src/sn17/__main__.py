"""The `sn17` command."""

from __future__ import annotations

import typer

from .accept.command import accept, watch
from .up.command import up
from .wallet.command import app as wallet

app = typer.Typer(
    name="sn17",
    help="Run, look into and steer a 3D-generation miner of Bittensor subnet 17.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(up)
app.command()(accept)
app.command()(watch)
app.add_typer(wallet)


@app.callback()
def _root() -> None:
    """Keep `sn17 up` a sub-command however many commands there are."""


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
