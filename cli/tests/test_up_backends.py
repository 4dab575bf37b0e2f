"""Which generator `sn17 up` takes."""

from __future__ import annotations

import pytest
import typer
from sn17.up.backends import NEEDED_BY_TORCH, choose


def test_torch_is_taken_where_it_is_installed() -> None:
    assert choose(None, lambda module: True) == "torch"
    for missing in NEEDED_BY_TORCH:
        assert choose(None, lambda module, missing=missing: module != missing) == "procedural"


def test_what_is_asked_for_is_taken() -> None:
    assert choose("procedural", lambda module: True) == "procedural"
    assert choose("torch", lambda module: True) == "torch"


def test_what_cannot_be_had_is_refused_with_what_to_do() -> None:
    with pytest.raises(typer.BadParameter, match="--extra torch"):
        choose("torch", lambda module: False)
    with pytest.raises(typer.BadParameter, match="procedural, torch"):
        choose("abacus", lambda module: True)
