"""``sn17-trellis`` and ``python -m sn17_trellis``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

USAGE = """usage: sn17-trellis COMMAND [--help]

  serve      run the worker
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[Sequence[str]], int]] = {"serve": _serve}
    if not arguments or arguments[0] not in commands:
        known = bool(arguments) and arguments[0] in ("-h", "--help")
        (sys.stdout if known else sys.stderr).write(USAGE)
        return 0 if known else 2
    return commands[arguments[0]](arguments[1:])


def _serve(argv: Sequence[str]) -> int:
    from sn17_trellis.serve import serve

    return serve(argv)


if __name__ == "__main__":
    sys.exit(main())
