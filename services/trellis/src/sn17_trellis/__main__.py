"""``sn17-trellis`` and ``python -m sn17_trellis``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

USAGE = """usage: sn17-trellis COMMAND [--help]

  serve      run the worker
  fetch      download checkpoints at a given revision
  check      say whether a directory holds a usable checkpoint
  compare    run one checkpoint two ways, side by side
  calibrate  measure what a checkpoint's fast lane may leave out
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "serve": _serve,
        **dict.fromkeys(("fetch", "check", "compare", "calibrate"), _command(arguments)),
    }
    if not arguments or arguments[0] not in commands:
        known = bool(arguments) and arguments[0] in ("-h", "--help")
        (sys.stdout if known else sys.stderr).write(USAGE)
        return 0 if known else 2
    return commands[arguments[0]](arguments[1:])


def _command(arguments: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """The subcommand's module, imported only when it runs: it may need torch."""

    def run(rest: Sequence[str]) -> int:
        module = importlib.import_module(f"sn17_trellis.commands.{arguments[0]}")
        code: int = module.main(rest)
        return code

    return run


def _serve(argv: Sequence[str]) -> int:
    from sn17_trellis.serve import serve

    return serve(argv)


if __name__ == "__main__":
    sys.exit(main())
