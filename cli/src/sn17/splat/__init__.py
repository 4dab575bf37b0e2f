"""``sn17 splat``: look into gaussian splats, repair, picture, convert and compare them."""

from sn17.splat.command import app

__all__ = ["app"]
