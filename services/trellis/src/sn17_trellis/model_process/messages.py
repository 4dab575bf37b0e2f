"""What service and model process say to each other over a socket: JSON, with bytes after it where needed."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from multiprocessing.connection import Connection
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from sn17_contract.metrics import GenerationKind

from sn17_trellis.backend import (
    BadImage,
    BadPrompt,
    BadSampling,
    Cancelled,
    DeviceError,
    EmptyStructure,
    GenerationError,
    GpuOutOfMemory,
    Job,
    ModelMissing,
    Sampling,
    StructureTooLarge,
    UnusableOutput,
)
from sn17_trellis.quality import Quality


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


# --- to the model process -----------------------------------------------------------------------------


class Load(_Message):
    """Read the weights."""

    kind: Literal["load"] = "load"


class Turns(_Message):
    """How long a process that is made ready may hold the device before whoever waits goes first.

    ``hold_seconds`` during the first ``patient_seconds`` of a phase, ``hurried_seconds`` afterwards.
    """

    hold_seconds: float = 0.0
    patient_seconds: float = 0.0
    hurried_seconds: float = 0.0

    def at(self, elapsed: float) -> float:
        """Seconds to hold it, so long after the phase began."""
        return self.hold_seconds if elapsed < self.patient_seconds else self.hurried_seconds


class WarmUp(_Message):
    """Compile and allocate; the device is given up between its steps where somebody waits for it."""

    kind: Literal["warm_up"] = "warm_up"
    turns: Turns


class Run(_Message):
    """Make an asset and write it to ``file``. ``picture``: the bytes of a picture's file follow."""

    kind: Literal["run"] = "run"
    number: int
    job: GenerationKind
    seed: int
    prompt: str | None
    sampling: Sampling
    picture: bool
    file: str
    turns: Turns | None = None
    """Of a process that is made ready beside another; None: the device is held to the end."""


class Cancel(_Message):
    """Nobody waits for this job any more."""

    kind: Literal["cancel"] = "cancel"
    number: int


class Cleanup(_Message):
    """Free what can be made again."""

    kind: Literal["cleanup"] = "cleanup"


class Close(_Message):
    """Finish what is being encoded, let go of the device, end."""

    kind: Literal["close"] = "close"


# --- to the service -----------------------------------------------------------------------------------


class Loaded(_Message):
    """The weights are there. ``device`` is the card's UUID, None without one; the canary has no picture
    bytes here: the model process keeps its own job."""

    kind: Literal["loaded"] = "loaded"
    name: str
    identity: str
    models: tuple[str, ...]
    device: str | None


class Warm(_Message):
    """``device_seconds``: how long the device was held for it, ``waited_seconds``: how long it was not."""

    kind: Literal["warm"] = "warm"
    device_seconds: float
    waited_seconds: float


class Progress(_Message):
    """``number`` 0 is the warm-up."""

    kind: Literal["progress"] = "progress"
    number: int
    stage: str
    step: int
    steps: int


class Generated(_Message):
    """The arrays are made; the asset is encoded next, beside the following job.

    ``device_seconds``: how long the device was held for it, ``waited_seconds``: how long it was not.
    """

    kind: Literal["generated"] = "generated"
    number: int
    gaussians: int
    stage_seconds: dict[str, float]
    lane: str
    device_seconds: float
    waited_seconds: float


class Encoded(_Message):
    """The asset lies in the file that was named."""

    kind: Literal["encoded"] = "encoded"
    number: int
    size: int
    digest: str
    gaussians: int
    finite_share: float
    statistics: dict[str, float]

    @property
    def quality(self) -> Quality:
        return Quality(self.gaussians, self.finite_share, self.statistics)


class Failed(_Message):
    """A job, or with number 0 a load, a warm-up or a clean-up, that raised."""

    kind: Literal["failed"] = "failed"
    number: int
    error: str
    detail: str
    device_error: str | None


class Cleaned(_Message):
    kind: Literal["cleaned"] = "cleaned"


class Vitals(_Message):
    """Device bytes by kind, told about once a second."""

    kind: Literal["vitals"] = "vitals"
    gpu_memory: dict[str, int]


Command = Annotated[Load | WarmUp | Run | Cancel | Cleanup | Close, Field(discriminator="kind")]
Report = Annotated[
    Loaded | Warm | Progress | Generated | Encoded | Failed | Cleaned | Vitals, Field(discriminator="kind")
]
COMMANDS: Final[TypeAdapter[Command]] = TypeAdapter(Command)
REPORTS: Final[TypeAdapter[Report]] = TypeAdapter(Report)


class Channel:
    """One end. Several threads may send; one receives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: _Message, attached: bytes | memoryview | None = None) -> None:
        """Raises OSError when the other end is gone."""
        with self._lock:
            self._connection.send_bytes(message.model_dump_json().encode())
            if attached is not None:
                self._connection.send_bytes(attached)

    def command(self) -> tuple[Command, bytes | None]:
        """The next command. Raises EOFError or OSError when the service is gone."""
        command = COMMANDS.validate_json(self._connection.recv_bytes())
        attached = isinstance(command, Run) and command.picture
        return command, self._connection.recv_bytes() if attached else None

    def report(self) -> Report:
        """The next report. Raises EOFError or OSError when the model process is gone or talks nonsense."""
        try:
            return REPORTS.validate_json(self._connection.recv_bytes())
        except ValidationError as error:
            raise EOFError(f"an unreadable report: {error.error_count()} errors") from error

    def hang_up(self) -> None:
        """End the conversation, also while another thread receives: that one is told of the end."""
        with (
            self._lock,
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._connection.fileno())) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket: only for the thread that receives, or once it has ended."""
        with self._lock:
            self._connection.close()


def job_of(run: Run, attached: bytes | None) -> Job:
    """The job of a command, its picture not decoded yet."""
    return Job(run.job, run.seed, run.prompt, sampling=run.sampling, picture=attached)


# --- errors -------------------------------------------------------------------------------------------

_ERRORS: Final[dict[str, type[Exception]]] = {
    error.__name__: error
    for error in (
        BadImage,
        BadPrompt,
        BadSampling,
        Cancelled,
        EmptyStructure,
        GenerationError,
        GpuOutOfMemory,
        StructureTooLarge,
        ModelMissing,
        UnusableOutput,
        MemoryError,
        ValueError,
    )
}


def failed(number: int, error: BaseException) -> Failed:
    """An error as it goes to the service."""
    return Failed(
        number=number,
        error=type(error).__name__,
        detail=str(error)[:2000],
        device_error=error.kind if isinstance(error, DeviceError) else None,
    )


def error_of(message: Failed) -> Exception:
    """The error as the service's code knows it; an unknown one keeps its name in its text."""
    if message.device_error is not None:
        return DeviceError(message.device_error, message.detail)
    found = _ERRORS.get(message.error)
    return RuntimeError(f"{message.error}: {message.detail}") if found is None else found(message.detail)
