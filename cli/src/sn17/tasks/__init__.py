"""``sn17 tasks``: what the miner did, and why."""

from .command import app

__all__ = ["app"]
