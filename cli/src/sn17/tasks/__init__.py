"""``sn17 tasks``: what the miner did, and why."""

from sn17.tasks.command import app

__all__ = ["app"]
