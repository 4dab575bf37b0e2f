"""The models a gateway offers: what they take, and what their results are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Model:
    """``splat``: results are the subnet's SPZ, else GLB."""

    name: str
    takes_text: bool
    splat: bool


DEFAULT_MODEL: Final = "404-3dgs"
#: Every model of 404's gateway; a setting says which of them are offered.
MODELS: Final = {
    model.name: model
    for model in (
        Model(DEFAULT_MODEL, takes_text=True, splat=True),
        Model("404-mesh", takes_text=False, splat=False),
        Model("404-mesh-v2", takes_text=False, splat=False),
    )
}
