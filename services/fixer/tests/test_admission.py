from __future__ import annotations

import pytest
from sn17_contract.http import Code
from sn17_fixer.admission import MemoryBudget
from sn17_service.problems import Problem


def test_what_does_not_fit_is_refused_and_what_is_given_back_fits_again() -> None:
    budget = MemoryBudget(100)
    with budget.reservation() as first:
        first.at_least(60)
        first.at_least(40)  # never shrinks
        with budget.reservation() as second:
            second.at_least(30)
            with pytest.raises(Problem) as refused:
                second.at_least(41)
            assert (refused.value.code, refused.value.status) == (Code.OVERLOADED, 503)
            assert refused.value.retry_after_seconds is not None
            assert budget.used == 90
        second_again = budget.used
    assert (second_again, budget.used) == (60, 0)


def test_what_can_never_fit_is_not_asked_to_come_again() -> None:
    with MemoryBudget(100).reservation() as reservation, pytest.raises(Problem) as refused:
        reservation.at_least(101)
    assert refused.value.code is Code.TOO_LARGE
    assert refused.value.retry_after_seconds is None
