"""Steering the workers of a cluster: cordon, uncordon, recycle, pause, resume, explain, replay."""

from .command import app

__all__ = ["app"]
