"""``python -m sn17_operator``: run the operator; ``crd`` prints the CustomResourceDefinition."""

from __future__ import annotations

import os
import sys

from sn17_service.settings import load_settings

from sn17_operator.app import serve
from sn17_operator.crd import crd_text
from sn17_operator.settings import OperatorSettings


def main() -> None:
    """Exit code 0 after SIGTERM, 1 when the Lease or a watch was lost, 2 for wrong settings."""
    if sys.argv[1:] == ["crd"]:
        sys.stdout.write(crd_text())
        return
    # kopf asks for the user's name, and a user id without an entry in passwd has none.
    os.environ.setdefault("USER", "sn17")
    settings = load_settings(
        OperatorSettings,
        prog="sn17-operator",
        description="Watches TRELLIS workers and remediates degraded ones.",
    )
    raise SystemExit(serve(settings))


if __name__ == "__main__":
    main()
