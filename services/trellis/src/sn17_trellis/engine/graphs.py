"""CUDA graphs: work whose shapes stay the same is launched as one, instead of kernel by kernel from Python.

A forward of the released latent flow takes the host 30 ms to launch and the GPU 13 ms to run: without graphs
the GPU waits.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Work = Callable[[], Generator[None, None, Tensor]]
"""Makes a tensor, and yields where a recording of it may be cut."""


class GraphMemory:
    """Device memory that graphs made one after the other share.

    A graph of its own keeps the memory in use while no other does: the allocator cannot take up again a pool
    that has gone idle. `free` lets go of it; graphs alive then keep what they need.
    """

    def __init__(self) -> None:
        self._keeper: torch.cuda.CUDAGraph | None = None
        # Memory that was freed on one stream is not given out on another.
        self._stream: torch.cuda.Stream | None = None

    def record(self, work: Work) -> tuple[Recording, Tensor]:
        """Record work that has run before, and run it; every later replay writes the result anew, in place.

        Each piece is replayed before the next is recorded: the GPU works while the host records.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        if self._keeper is None:
            self._keeper, _ = _record(lambda: torch.zeros(1, device="cuda"), self._stream, None)
        pieces: list[torch.cuda.CUDAGraph] = []
        running, out = work(), None
        try:
            while out is None:
                piece, out = _record(lambda: _advance(running), self._stream, self._keeper)
                piece.replay()
                pieces.append(piece)
        except BaseException:
            # A recording that CUDA gave up leaves the pool as if it still went on.
            self._keeper = self._stream = None
            raise
        return Recording(tuple(pieces)), out

    def free(self) -> None:
        self._keeper = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Graphs that follow one another."""

    pieces: tuple[torch.cuda.CUDAGraph, ...]

    def replay(self) -> None:
        for piece in self.pieces:
            piece.replay()


def _advance(running: Generator[None, None, Tensor]) -> Tensor | None:
    """Up to where it may be cut next (None), or to its result."""
    try:
        next(running)
    except StopIteration as stop:
        out: Tensor = stop.value
        return out
    return None


def _complete(running: Generator[None, None, Tensor]) -> Tensor:
    """The result of work that is not recorded."""
    while (out := _advance(running)) is None:
        pass
    return out


def _record(
    work: Callable[[], T], stream: torch.cuda.Stream, beside: torch.cuda.CUDAGraph | None
) -> tuple[torch.cuda.CUDAGraph, T]:
    # Unlike torch.cuda.graph this neither waits for the device nor empties caches: what was launched before
    # runs on meanwhile. Other threads may go on calling CUDA, except to draw random numbers there: torch
    # refuses that while any graph of the process is recorded. The engine draws on the CPU.
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream), _no_collection():
        graph.capture_begin(None if beside is None else beside.pool(), capture_error_mode="thread_local")
        try:
            out = work()
        except BaseException:
            # Ends the recording, which the error has spoilt.
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    current.wait_stream(stream)
    return graph, out


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's collector from running meanwhile.

    A request that a caller left may lie in a cycle with its traceback, graphs included; to destroy a graph
    while another is recorded spoils the recording.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Memory(Protocol):
    """Records work; `GraphMemory` is the device's."""

    def record(self, work: Work) -> tuple[Graph, Tensor]:
        """Record work and run it; the result is where every replay writes it."""
        ...


class Graph(Protocol):
    """Recorded work."""

    def replay(self) -> None: ...


class Replays:
    """One piece of work per key, recorded when it is wanted a second time; the first time it simply runs.

    The first run compiles kernels, which cannot be recorded. `seen` holds the keys that have run before: who
    hands it on to the next of these has it record at once. The work reads tensors that stay in place. Without
    memory for graphs it simply runs every time.
    """

    def __init__(self, memory: Memory | None, seen: set[int] | None = None) -> None:
        self._memory = memory
        self._seen = set[int]() if seen is None else seen
        self._ran: set[int] = set()
        self._graphs: dict[int, tuple[Graph, Tensor]] = {}

    def run(self, key: int, work: Work) -> Tensor:
        """The work's result, valid until the next run of this key."""
        if self._memory is None or key not in self._seen:
            self._seen.add(key)
            self._ran.add(key)
            return _complete(work())
        if key in self._graphs:
            graph, out = self._graphs[key]
            graph.replay()
            return out
        try:
            self._graphs[key] = self._memory.record(work)
        except RuntimeError:
            if key in self._ran:
                raise
            # A library may load a kernel for these sizes only now: the next time it is there.
            self._ran.add(key)
            return _complete(work())
        return self._graphs[key][1]
