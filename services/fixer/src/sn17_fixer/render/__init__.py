"""A small renderer on the CPU that shows a splat as the subnet's validator sees it."""

from sn17_fixer.render.camera import Camera, validator_camera
from sn17_fixer.render.check import check_render
from sn17_fixer.render.preview import preview_png
from sn17_fixer.render.scene import Model, render, validator_model

__all__ = ["Camera", "Model", "check_render", "preview_png", "render", "validator_camera", "validator_model"]
