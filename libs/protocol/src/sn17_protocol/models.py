"""The three calls of the pull protocol, field for field as validators send and accept them.

Unknown fields are ignored and numbers written as strings are accepted, as on the wire: several releases of
the validator are alive at once, and the transport's terminal objects arrive in headers, where everything is
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

QUALITY_THRESHOLD: Final = 0.6
"""The score from which a validator accepts a result."""

COMPRESSION_SPZ: Final = 2
"""``compression`` of the subnet's SPZ, the only one validators decode."""


class WireModel(BaseModel):
    """Immutable; unknown fields are dropped, as the other side drops them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _to_int(value: Any) -> Any:
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _to_float(value: Any) -> Any:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


WireInt = Annotated[int, BeforeValidator(_to_int)]
WireFloat = Annotated[float, BeforeValidator(_to_float)]


class TerminalInfo(WireModel):
    """One end of a call: ``dendrite`` is the caller (the miner), ``axon`` the one who answers (the
    validator).
    """

    status_code: WireInt | None = None
    status_message: str | None = None
    process_time: WireFloat | None = None
    ip: str | None = None
    port: WireInt | None = None
    version: WireInt | None = None
    nonce: WireInt | None = None
    uuid: str | None = None
    hotkey: str | None = None
    signature: str | None = None


class TextTask(WireModel):
    """A task whose prompt is a sentence."""

    type: Literal["text"] = "text"
    id: str
    prompt: str

    @property
    def log_id(self) -> str:
        """The prompt, cut to 100 characters, for logs."""
        return self.prompt if len(self.prompt) <= 100 else self.prompt[:97] + "..."


class ImageTask(WireModel):
    """A task whose prompt is the base64 text of an image file (PNG or JPEG bytes, no ``data:`` prefix)."""

    type: Literal["image"]
    id: str
    prompt: str

    @property
    def log_id(self) -> str:
        """A short name for logs: the image itself may be megabytes of base64."""
        return f"image:{self.id}"


Task = Annotated[TextTask | ImageTask, Field(union_mode="left_to_right")]
"""A union without a discriminator: ``type`` decides, and text is what remains."""


class Synapse(WireModel):
    """What every call carries besides its own fields."""

    REQUIRED: ClassVar[tuple[str, ...]] = ()
    """Fields without a default, in order: each needs a dummy header (see ``transport``)."""
    DECISIVE: ClassVar[frozenset[str]] = frozenset()
    """Fields of an answer, dotted, without which it says nothing. Below the first level each stands for
    itself, unless all of it decides.
    """

    @classmethod
    def decides(cls, loc: Sequence[int | str]) -> bool:
        """Whether a field that cannot be read makes the answer unreadable; ``loc`` as pydantic names it."""
        parts = [str(part) for part in loc]
        if not parts:
            return True
        return (".".join(parts) if cls.nested(parts[0]) else parts[0]) in cls.DECISIVE

    @classmethod
    def nested(cls, name: int | str) -> bool:
        """Whether only some of a field's own fields decide."""
        return any(decisive.startswith(f"{name}.") for decisive in cls.DECISIVE)

    name: str | None = None
    timeout: WireFloat | None = 12.0
    total_size: WireInt | None = 0
    header_size: WireInt | None = 0
    dendrite: TerminalInfo | None = TerminalInfo()
    axon: TerminalInfo | None = TerminalInfo()
    computed_body_hash: str | None = ""

    @property
    def dendrite_hotkey(self) -> str | None:
        """Whom the body names as the caller; handlers believe this, not the verified headers."""
        return self.dendrite.hotkey if self.dendrite else None

    @property
    def axon_hotkey(self) -> str | None:
        """Whom the body names as the validator."""
        return self.axon.hotkey if self.axon else None


class Feedback(WireModel):
    """What a validator says about a submission."""

    validation_failed: bool = False
    task_fidelity_score: float = 0.0
    average_fidelity_score: float = 0.0
    generations_within_the_window: int = 0
    current_duel_rating: float = 0.0
    current_miner_reward: float = 0.0


class PullTask(Synapse):
    """Asks for a task. A miner sends the defaults."""

    DECISIVE: ClassVar[frozenset[str]] = frozenset({"task", "cooldown_until"})

    task: Task | None = None
    validation_threshold: WireFloat = QUALITY_THRESHOLD
    throttle_period: WireInt = 0
    cooldown_until: WireInt = 0
    cooldown_violations: WireInt = 0


class SubmitResults(Synapse):
    """Hands in a result; ``results`` is base64 of the subnet's SPZ, or empty to skip without penalty.

    ``data_format``, ``data_ver`` and ``compression`` are constants of the wire: validators decode SPZ
    whatever they say, and the miner in the field leaves them at these values.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("results", "submit_time", "signature")
    DECISIVE: ClassVar[frozenset[str]] = frozenset(
        {"feedback", "feedback.validation_failed", "feedback.task_fidelity_score", "cooldown_until"}
    )

    task: Task | None = None
    task_id: str = ""
    results: str
    data_format: str = "ply"
    data_ver: int = 0
    compression: int = COMPRESSION_SPZ
    submit_time: int
    signature: str
    feedback: Feedback | None = None
    cooldown_until: WireInt = 0


class GetVersion(Synapse):
    """Asks for the validator's version; only stakers and the subnet owner get an answer."""

    version: int = 0
    validation_version: str = ""


SYNAPSES: Final[dict[str, type[Synapse]]] = {
    kind.__name__: kind for kind in (Synapse, PullTask, SubmitResults, GetVersion)
}
"""Every route of a validator by name; ``Synapse`` itself is the ping."""
