"""Names of fields and query parameters: a typo is refused, never read as a default."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from fastapi import Request
from sn17_contract.http import Code

from sn17_service.problems import Problem

_SHOWN = 64


def unknown_name(name: str, known: Sequence[str]) -> str:
    """The sentence for a name that nobody knows, with the nearest known ones."""
    shown = name[:_SHOWN]
    near = get_close_matches(shown.lower(), known, n=2, cutoff=0.6)
    question = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{shown} is not known{question} (known: {', '.join(known) or 'none'})"


def refuse_unknown_query(request: Request, known: Sequence[str]) -> None:
    """Check the names in the address.

    Raises:
        Problem: ``bad_request`` for a name outside ``known`` and for one that is given twice.
    """
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise Problem(Code.BAD_REQUEST, unknown_name(name, known))
        if name in seen:
            raise Problem(Code.BAD_REQUEST, f"{name[:_SHOWN]} is given twice")
        seen.add(name)
