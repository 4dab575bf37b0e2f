"""``python -m sn17_miner``: the miner."""

from __future__ import annotations

import os

os.environ.setdefault("READ_ONLY", "1")


def main() -> None:
    """Console script."""
    from sn17_service import load_settings

    from sn17_miner.app import serve
    from sn17_miner.settings import MinerSettings

    settings = load_settings(
        MinerSettings,
        prog="sn17-miner",
        description="Pulls tasks, drives workers and fixer, signs and submits.",
    )
    raise SystemExit(serve(settings))


if __name__ == "__main__":
    main()
