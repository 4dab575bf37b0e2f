"""The `sn17` command."""

from __future__ import annotations

import typer

from .up.command import up

app = typer.Typer(
    name="sn17",
    help="Run, look into and steer a 3D-generation miner of Bittensor subnet 17.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(up)


@app.callback()
def _root() -> None:
    """Keep `sn17 up` a sub-command however many commands there are."""


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
