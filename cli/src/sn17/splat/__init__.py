"""``sn17 splat``: look into gaussian splats, repair, picture, convert and compare them."""

from .command import app

__all__ = ["app"]
