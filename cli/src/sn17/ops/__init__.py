"""Steering the workers of a cluster: cordon, uncordon, recycle, pause, resume, explain, replay."""

from sn17.ops.command import app

__all__ = ["app"]
