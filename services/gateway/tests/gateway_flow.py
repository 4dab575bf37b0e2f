"""Tasks through gateways that are killed at random: what clients and workers saw, compared at the end."""

from __future__ import annotations

import random
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from gateway_client import Client, FleetWorker, splat_bytes
from gateway_process import DEADLINE, GUEST, GatewayProcess

PAUSE = 0.02
AT_ONCE = 30
#: A client that found so many of its oldest tasks not made yet asks again later.
NOT_YET = 10
LATER = 0.2
#: Share of the tasks with which a worker dies: it is never heard of again.
DYING = 0.03
#: The client waits when so many of its tasks are not there yet.
OPEN = 1000


@dataclass
class Seen:
    """``sent``: bytes that workers handed in, by task; ``got``: what clients fetched.

    Tasks beyond ``allowed`` wait for the next kill.
    """

    wanted: int
    allowed: int = 0
    ids: list[str] = field(default_factory=list)
    sent: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    got: dict[str, bytes] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    repeats: int = 0
    deliveries: int = 0
    died: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    errors: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)
    moved: threading.Condition = field(default_factory=threading.Condition)

    def progress(self, seen: int) -> None:
        """Wait until more than ``seen`` results were fetched."""
        with self.moved:
            moved = self.moved.wait_for(lambda: len(self.got) > seen or self.ended.is_set(), DEADLINE)
        assert moved, f"{len(self.got)} of {self.wanted} tasks came back, and no more for {DEADLINE:.0f} s"


class Flow:
    """``gateways`` share their tasks; clients and workers go from one to the next when one is away."""

    def __init__(self, gateways: Sequence[GatewayProcess], tasks: int, seed: int) -> None:
        self.gateways = gateways
        self.seen = Seen(tasks)
        self._seed = seed

    def run(self, kills: Mapping[str, Callable[[], None]], times: int) -> Seen:
        """Until every task was fetched; one of ``kills``, ``times`` times, each amid a share of the tasks.

        They come in rounds of random order.
        """
        clients = [threading.Thread(target=self._guarded(self._adds)), *self._threads(self._fetches, 2)]
        threads = [*clients, *self._threads(self._works, 4)]
        share = self.seen.wanted // (times + 1)
        self.seen.allowed = share
        for thread in threads:
            thread.start()
        rng = random.Random(self._seed)
        round_: list[str] = []
        for number in range(times):
            round_ = round_ or rng.sample(sorted(kills), len(kills))
            self.seen.progress(number * share + rng.randrange(share))
            self.seen.ended.wait(rng.uniform(0, 0.05))
            target = round_.pop()
            kills[target]()
            self.seen.kills[target] += 1
            self.seen.allowed = self.seen.wanted if number == times - 1 else (number + 2) * share
        for thread in threads:
            thread.join()
        if self.seen.errors:
            raise self.seen.errors[0]
        return self.seen

    def _threads(self, target: Callable[[int], None], count: int) -> list[threading.Thread]:
        return [
            threading.Thread(target=self._guarded(lambda number=number: target(number)))
            for number in range(count)
        ]

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.seen.errors.append(error)
                self.seen.ended.set()

        return run

    def _asked(self, call: Callable[[str], httpx2.Response], turn: int) -> httpx2.Response | None:
        """The answer, or None for none and for 5xx: whoever asks, asks again."""
        try:
            answer = call(self.gateways[turn % len(self.gateways)].url)
        except httpx2.TransportError:
            self.seen.ended.wait(PAUSE)
            return None
        return None if answer.status_code >= 500 else answer

    def _adds(self) -> None:
        clients = {gateway.url: Client(gateway.url, GUEST) for gateway in self.gateways}
        turn = 0
        while len(self.seen.ids) < self.seen.wanted and not self.seen.ended.is_set():
            turn += 1
            if len(self.seen.ids) >= min(self.seen.allowed, len(self.seen.got) + OPEN):
                self.seen.ended.wait(PAUSE)
                continue
            prompt = f"robot number {len(self.seen.ids)}"
            answer = self._asked(lambda url, prompt=prompt: clients[url].add(prompt), turn)
            if answer is not None:
                assert answer.status_code == 200, answer.text
                self.seen.ids.append(answer.json()["id"])

    def _works(self, number: int) -> None:
        workers = {g.url: FleetWorker(g.url, f"w{number}", f"//Flow{number % 2}") for g in self.gateways}
        rng, turn = random.Random(self._seed - number), number
        while not self.seen.ended.is_set():
            turn += 1
            answer = self._asked(lambda url: workers[url].pull_answer(requested_task_count=3), turn)
            if answer is None:
                continue
            assert answer.status_code == 200, answer.text
            offers = answer.json()["tasks"]
            if not offers:
                self.seen.ended.wait(PAUSE)
            for offer in offers:
                if rng.random() < DYING:
                    self.seen.died += 1
                else:
                    self._delivers(workers, offer, turn)

    def _delivers(self, workers: dict[str, FleetWorker], offer: dict[str, Any], turn: int) -> None:
        """Until the answer is final: 200, or 401 and 410, which may mean that it is there already."""
        asset = splat_bytes(zlib.crc32(offer["assignment_token"].encode()), n=8)
        with self.seen.lock:
            self.seen.sent[offer["id"]].add(asset)
            self.seen.deliveries += 1
        while not self.seen.ended.is_set():
            turn += 1
            answer = self._asked(lambda url: workers[url].deliver(offer, asset), turn)
            if answer is not None:
                assert answer.status_code in (200, 401, 410), answer.text
                return

    def _fetches(self, number: int) -> None:
        """Poll for the oldest tasks that are not there; fetch others again: their bytes stay the same."""
        clients = {gateway.url: Client(gateway.url, GUEST) for gateway in self.gateways}
        rng, turn = random.Random(self._seed + number), number
        while not self.seen.ended.is_set():
            turn += 1
            mine = list(self.seen.ids)[number::2]
            missing = [task for task in mine if task not in self.seen.got][:AT_ONCE]
            not_yet = 0
            for task in [*rng.sample(mine, min(len(mine), 2)), *missing]:
                answer = self._asked(lambda url, task=task: clients[url].result(task), turn)
                if answer is None or answer.status_code == 404:
                    if answer is not None and answer.text.startswith("Task failed"):
                        self.seen.failed[task] = answer.text
                        self.seen.ended.set()
                    not_yet += 1
                    if not_yet >= NOT_YET:
                        break
                    continue
                assert answer.status_code == 200, answer.text
                with self.seen.lock:
                    self.seen.repeats += task in self.seen.got
                    if self.seen.got.setdefault(task, answer.content) != answer.content:
                        self.seen.different.append(task)
                with self.seen.moved:
                    self.seen.moved.notify_all()
            if len(self.seen.got) >= self.seen.wanted:
                self.seen.ended.set()
                with self.seen.moved:
                    self.seen.moved.notify_all()
            self.seen.ended.wait(LATER if not_yet else PAUSE)


def check(seen: Seen, gateways: Sequence[GatewayProcess]) -> None:
    """Nothing lost, nothing invented, and every result the same from every gateway once more."""
    assert seen.failed == {}
    assert seen.different == []
    assert len(seen.ids) == len(set(seen.ids)) == seen.wanted
    assert set(seen.got) == set(seen.ids)
    for gateway in gateways:
        client = Client(gateway.url, GUEST)
        for task in seen.ids:
            assert client.status(task)["status"] == "Success"
            assert client.result(task).content == seen.got[task]
    assert all(seen.got[task] in seen.sent[task] for task in seen.ids)
