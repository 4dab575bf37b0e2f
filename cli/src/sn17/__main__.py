"""The `sn17` command."""

from __future__ import annotations

import typer

from .accept.command import accept, watch
from .ops import app as ops_app
from .splat import app as splat_app
from .tasks import app as tasks_app
from .up.command import up
from .up.status import status
from .wallet.command import app as wallet_app

app = typer.Typer(
    name="sn17",
    help="Run, look into and steer a 3D-generation miner of Bittensor subnet 17.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
for command in (up, status, accept, watch):
    app.command()(command)
app.registered_commands.extend(ops_app.registered_commands)
app.add_typer(splat_app, name="splat")
app.add_typer(tasks_app, name="tasks")
app.add_typer(wallet_app, name="wallet")


@app.callback()
def _root() -> None:
    """Keep `sn17 up` a sub-command however many commands there are."""


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
