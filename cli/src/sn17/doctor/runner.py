"""Runs checks side by side, each within its own time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from sn17.doctor.model import Check, Finding, ProbeError, Result, unknown


def run(checks: Sequence[Check], monotonic: Callable[[], float] = time.monotonic) -> Iterator[Result]:
    """Results in the order of ``checks``, as soon as each is known. Never raises what a check raises.

    A check that hangs (a dead mount, a silent server) is left behind in a daemon thread. A reason
    for which several cannot find out is said by the first of them.
    """
    started = monotonic()
    running = [_Running(check) for check in checks]
    reasons: dict[Finding, str] = {}
    for each in running:
        left = each.check.seconds - (monotonic() - started)
        finding = each.wait(max(left, 0.0))
        if each.unprobed and finding in reasons:
            finding = unknown(f"not found out, for the reason that {reasons[finding]} has")
        elif each.unprobed:
            reasons[finding] = each.check.name
        yield Result(each.check.name, finding)


class _Running:
    def __init__(self, check: Check) -> None:
        self.check = check
        self.unprobed = False
        self._finding: Finding | None = None
        self._thread = threading.Thread(target=self._work, name=f"check-{check.name}", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> Finding:
        self._thread.join(seconds)
        return self._finding or unknown(f"no answer within {self.check.seconds:.0f} s")

    def _work(self) -> None:
        try:
            self._finding = self.check.run()
        except ProbeError as error:
            self.unprobed = True
            self._finding = error.finding
        except Exception as error:
            # Whatever a foreign file or server can provoke: the other checks still tell what they find.
            self._finding = unknown(f"the check broke off: {type(error).__name__}: {error}")
