from __future__ import annotations

import numpy as np
import pytest
from conftest_splats import FIELDS, make_splats
from sn17_splats import Splats


def test_shapes_are_held_together() -> None:
    splats = make_splats(4)
    with pytest.raises(ValueError, match=r"rotations has shape \(4, 3\)"):
        splats.replace(rotations=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="opacity_logits has shape"):
        splats.replace(opacity_logits=np.zeros(5))
    with pytest.raises(ValueError, match="f_rest has shape"):
        splats.replace(f_rest=np.zeros((4, 10)))


@pytest.mark.parametrize(("degree", "floats"), [(0, 14), (1, 23), (2, 38), (3, 59)])
def test_degree_and_size(degree: int, floats: int) -> None:
    splats = make_splats(10, degree)
    assert splats.sh_degree == degree
    assert splats.nbytes == 10 * 4 * floats


def test_select_picks_rows_of_every_array() -> None:
    splats = make_splats(10, 1)
    picked = splats.select(np.array([7, 2]))
    assert len(picked) == 2
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(picked, name), getattr(splats, name)[[7, 2]])


def test_other_dtypes_become_float32() -> None:
    splats = Splats(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 4), int), np.zeros(2), np.zeros((2, 3)))
    assert all(getattr(splats, name).dtype == np.float32 for name in FIELDS[:-1])
