"""numba's compiler with the settings that all kernels share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(*, reorder: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile on the first call, without the interpreter's lock; kept on disk where a folder can be written.

    ``reorder`` lets sums run in any order, which vector units need.
    """
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if reorder:
        settings["fastmath"] = {"reassoc", "contract", "nsz"}

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # a read-only installation and no home
            return numba.njit(**settings)(function)

    return compile_
