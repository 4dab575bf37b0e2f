"""The smoke test of ``helm test``: does the release that was just installed work at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2
from sn17_contract.fixer import FixVerdict
from sn17_contract.metrics import Metric
from sn17_http import own_request
from sn17_splats import SplatError, read_splat

from sn17.accept.prompts import PROMPTS
from sn17.accept.stack import BusyError, Stack, StackError
from sn17.accept.verdict import Check, Grade

POLL_SECONDS = 2.0


@dataclass(slots=True)
class Smoke:
    """One asset through worker and fixer, and a look at what Prometheus sees. Ends within ``seconds``."""

    stack: Stack
    policy: str
    minimum_gaussians: int
    prometheus: str | None
    seconds: float = 100.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> Iterator[Check]:
        """Checks as they are done; the first that fails ends the test."""
        deadline = self.monotonic() + self.seconds
        url = self.stack.workers[0]
        try:
            ply = self._asset(url, deadline)
            count = len(read_splat(ply))
        except (StackError, SplatError) as error:
            yield Check("a worker makes an asset", "-", "an asset", Grade.FAIL, str(error))
            return
        enough = Grade.PASS if count > self.minimum_gaussians else Grade.FAIL
        yield Check(
            "a worker makes an asset", f"{count:,} gaussians", f"> {self.minimum_gaussians:,}", enough
        )
        try:
            fixed = self.stack.fix(ply, self.policy, as_ply=False)
        except (StackError, SplatError) as error:
            yield Check("the fixer encodes it", "-", "an asset for validators", Grade.FAIL, str(error))
            return
        verdict = fixed.report.verdict
        good = Grade.PASS if verdict is not FixVerdict.UNREPAIRABLE and len(fixed.splats) else Grade.FAIL
        yield Check(
            "the fixer encodes it", f"{verdict}, {len(fixed.body):,} bytes", "healthy or repaired", good
        )
        if self.prometheus:
            yield self._scraped(self.prometheus, deadline)

    def _asset(self, url: str, deadline: float) -> bytes:
        while True:
            try:
                return self.stack.generate(url, PROMPTS[0], 1).ply
            except BusyError as error:
                last: StackError = error
            except StackError as error:
                # Pods that have just started: the Service has no ready worker behind it yet.
                last = error
            if self.monotonic() > deadline:
                raise last
            self.sleep(POLL_SECONDS)

    def _scraped(self, prometheus: str, deadline: float) -> Check:
        name, wanted = "Prometheus sees the workers", "at least one"
        query = (
            f'count(up{{job="trellis"}} == 1) and on() (count({Metric.BOOT_INFO}{{service="trellis"}}) > 0)'
        )
        said = "no worker is scraped"
        while True:
            try:
                answer = own_request(
                    "GET",
                    f"{prometheus.rstrip('/')}/api/v1/query",
                    params={"query": query},
                    timeout=10,
                )
                found = answer.json()["data"]["result"]
                if found:
                    return Check(name, found[0]["value"][1], wanted, Grade.PASS)
            except (httpx2.HTTPError, ValueError, KeyError) as error:
                said = f"{type(error).__name__}: {error}"
            if self.monotonic() > deadline:
                return Check(name, "-", wanted, Grade.FAIL, said)
            self.sleep(POLL_SECONDS)
