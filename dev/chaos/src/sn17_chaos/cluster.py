"""Rounds on a cluster: releases side by side, each with a fault of its own, or one fault under all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Generic, TypeVar

from sn17_chaos.cluster_bed import Bed, bed
from sn17_chaos.cluster_faults import RELEASE
from sn17_chaos.cluster_wide import WIDE
from sn17_chaos.cluster_world import ClusterWorld
from sn17_chaos.faults import CannotInjectError, Fault
from sn17_chaos.invariants import check
from sn17_chaos.runner import Trial, title, trial

RECOVERY_SECONDS = 150.0
REST_SECONDS = 10.0
OWN_SECONDS = 75.0
WIDE_AT_ONCE = 3
Say = Callable[[str], None]
W = TypeVar("W")


@contextlib.contextmanager
def releases(on: Bed, count: int) -> Iterator[list[ClusterWorld]]:
    """So many releases, installed and healthy."""
    worlds = [ClusterWorld(on, f"chaos{index}") for index in range(count)]
    try:
        for world in worlds:
            world.start()
        for world in worlds:
            world.await_first()
        yield worlds
    finally:
        for world in worlds:
            world.close()


def wide_trial(worlds: Sequence[ClusterWorld], fault: Fault[Bed], rng: Random) -> list[Trial]:
    """One fault under all releases; each is judged by itself.

    Everything that starts processes happens in the calling thread: they end with it.
    """
    on = worlds[0].bed
    positions = [world.position() for world in worlds]
    undo = fault.inject(on, rng)
    try:
        time.sleep(rng.uniform(*fault.seconds))
    finally:
        undo()
    over = time.time()

    def judge(index: int) -> Trial:
        world = worlds[index]
        unrecovered = world.recover(over, RECOVERY_SECONDS)
        recovery = None if unrecovered else time.time() - over
        history = world.history(positions[index], over, unrecovered)
        return Trial(fault.name, [fault.name], len(history.assigned), check(history), recovery, history)

    with ThreadPoolExecutor(len(worlds)) as pool:
        return list(pool.map(judge, range(len(worlds))))


class Deck(Generic[W]):
    """Faults in a random order, those that injected least often first.

    injected: how often each has injected before, by name.
    """

    def __init__(self, faults: Sequence[Fault[W]], rng: Random, injected: Mapping[str, float]) -> None:
        self._faults, self._rng = list(faults), rng
        self._injected = {fault.name: injected.get(fault.name, 0.0) for fault in faults}

    def draw(self) -> Fault[W]:
        fault = min(self._rng.sample(self._faults, len(self._faults)), key=lambda f: self._injected[f.name])
        self._injected[fault.name] += 1
        return fault


class Injections:
    """Trials of a run: what is booked, and what could not be injected and why.

    count: injections; one under all releases is one, though it is a trial for each of them.
    """

    def __init__(self, worlds: Sequence[ClusterWorld], book: Callable[[Trial], None], rng: Random) -> None:
        self.worlds, self.skipped, self.rng = worlds, dict[str, str](), rng
        self.count = 0
        self._book, self._lock = book, threading.Lock()

    def undisturbed(self) -> None:
        """The baseline: a while in which nothing is broken."""
        self._side_by_side(lambda world, rng: self._one(world, [], rng))

    def own(self, deck: Deck[ClusterWorld], seconds: float) -> None:
        """Each release gets one fault after another, for so long."""
        end = time.monotonic() + seconds

        def lane(world: ClusterWorld, rng: Random) -> None:
            while time.monotonic() < end:
                with self._lock:
                    fault = deck.draw()
                self._one(world, [fault], rng)

        self._side_by_side(lane)

    def wide(self, fault: Fault[Bed]) -> None:
        """One fault under all of them."""
        try:
            for found in wide_trial(self.worlds, fault, self.rng):
                self._book(found)
            self.count += 1
        except (CannotInjectError, TimeoutError) as error:
            self.skipped[fault.name] = str(error)

    def _one(self, world: ClusterWorld, faults: Sequence[Fault[ClusterWorld]], rng: Random) -> None:
        try:
            found = trial(world, faults, rng, deadline=RECOVERY_SECONDS, rest=REST_SECONDS)
        except (CannotInjectError, TimeoutError) as error:
            self.skipped[title(faults)] = str(error)
        else:
            with self._lock:
                self._book(found)
                self.count += bool(faults)

    def _side_by_side(self, lane: Callable[[ClusterWorld, Random], None]) -> None:
        generators = [Random(self.rng.getrandbits(64)) for _ in self.worlds]
        with ThreadPoolExecutor(len(self.worlds)) as pool:
            list(pool.map(lane, self.worlds, generators))


def run(
    book: Callable[[Trial], None],
    *,
    seed: int,
    seconds: float,
    count: int,
    say: Say,
    only: Sequence[str] = (),
    injected: Mapping[str, float] = MappingProxyType({}),
    archives: Sequence[Path] = (),
) -> Injections:
    """Break things for ``seconds``.

    only: these faults. injected: how often each has injected before; those that did least come first.
    archives: the images, which are built otherwise.

    Raises MissingError.
    """
    rng = Random(seed)
    own = [fault for fault in RELEASE if not only or fault.name in only]
    wide = [fault for fault in WIDE if not only or fault.name in only]
    with bed(archives=archives) as on, releases(on, count) as worlds:
        end = time.monotonic() + seconds
        say(f"{count} releases on {len(on.nodes)} nodes")
        injections = Injections(worlds, book, rng)
        injections.undisturbed()
        deck, wide_deck = Deck(own, rng, injected), Deck(wide, rng, injected)
        try:
            while time.monotonic() < end:
                if own:
                    injections.own(deck, OWN_SECONDS if wide else end - time.monotonic())
                for _ in range(min(WIDE_AT_ONCE, len(wide))):
                    if time.monotonic() < end:
                        injections.wide(wide_deck.draw())
        finally:
            for world in worlds:
                for line in world.log:
                    say(line)
    return injections
