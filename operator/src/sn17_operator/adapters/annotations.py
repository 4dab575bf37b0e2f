"""The operator's notes on pods, and people's wishes, as annotation text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from sn17_contract.kubernetes import (
    ANNOTATION_CORDON,
    ANNOTATION_DEVICE_SUSPECT,
    ANNOTATION_HISTORY,
    ANNOTATION_INTENT,
    ANNOTATION_RECYCLE_REQUESTED,
    ANNOTATION_SKIP_REMEDIATION,
)

from sn17_operator.core.model import History, Intent, RuleClass, Stage, UserCordon
from sn17_operator.core.plan import Step


def _from_text(value: Any) -> Any:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value


def _to_text(value: float) -> str:
    return datetime.fromtimestamp(value, tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Time = Annotated[float, BeforeValidator(_from_text), PlainSerializer(_to_text, when_used="unless-none")]


_NO = frozenset({"false", "no", "off", "n", "f", "0", "null", "none"})
_YES = frozenset({"true", "yes", "on", "y", "t", "1", ""})


class _Note(BaseModel):
    model_config = ConfigDict(extra="ignore")


N = TypeVar("N", bound=_Note)


class IntentNote(_Note):
    """``sn17.io/intent``."""

    action: Stage
    boot_id: str | None = None
    container_id: str
    rule: str
    rule_class: RuleClass
    reason: str
    at: Time
    cordoned_at: Time
    life_id: str | None = None


class HistoryNote(_Note):
    """``sn17.io/history``."""

    recycled_at: Time | None = None
    recycled_container: str | None = None
    reason: str | None = None
    rest: dict[str, Time] = Field(default_factory=dict)
    rest_container: str | None = None
    failed: str | None = None
    retry_at: Time | None = None
    rest_life: str | None = None
    tried: Stage | None = None
    tried_at: Time | None = None
    swapped_at: Time | None = None
    cleanup_helped: bool | None = None
    suspect: str | None = None


class CordonNote(_Note):
    """``sn17.io/cordon``: a person's. ``lift`` asks the operator to end it."""

    by: Literal["user"] = "user"
    reason: str = ""
    at: Time | None = None
    lift: bool = False


class RequestNote(_Note):
    """``sn17.io/recycle-requested`` and ``sn17.io/skip-remediation``."""

    reason: str = ""


def intent_text(intent: Intent) -> str:
    return IntentNote.model_validate(intent, from_attributes=True).model_dump_json(exclude_none=True)


def history_text(history: History) -> str:
    note = HistoryNote.model_validate(history, from_attributes=True)
    return note.model_dump_json(exclude_none=True, exclude_defaults=True)


def changes(step: Step) -> dict[str, str | None]:
    """Annotations that a step writes; None removes."""
    found: dict[str, str | None] = {
        ANNOTATION_INTENT: None if step.intent is None else intent_text(step.intent),
        ANNOTATION_DEVICE_SUSPECT: step.history.suspect,
        ANNOTATION_HISTORY: None if step.history == History() else history_text(step.history),
    }
    if step.drop_request:
        found[ANNOTATION_RECYCLE_REQUESTED] = None
    if step.drop_user_cordon:
        found[ANNOTATION_CORDON] = None
    return found


@dataclass(frozen=True, slots=True)
class PodAnnotations:
    """What the annotations of one pod say. ``malformed`` names those that could not be read."""

    intent: Intent | None = None
    history: History = field(default_factory=History)
    user_cordon: UserCordon | None = None
    recycle_requested: str | None = None
    skip: str | None = None
    malformed: tuple[str, ...] = ()


def read(annotations: Mapping[str, str]) -> PodAnnotations:
    """Every note; one that cannot be read counts as absent and is named."""
    malformed: list[str] = []

    def parse(key: str, model: type[N]) -> N | None:
        text = annotations.get(key)
        if text is None:
            return None
        try:
            return model.model_validate_json(text)
        except ValidationError:
            malformed.append(key)
            return None

    intent = parse(ANNOTATION_INTENT, IntentNote)
    history = parse(ANNOTATION_HISTORY, HistoryNote)
    cordon = _wish(annotations, ANNOTATION_CORDON, CordonNote, malformed)
    request = _wish(annotations, ANNOTATION_RECYCLE_REQUESTED, RequestNote, malformed)
    skip = _wish(annotations, ANNOTATION_SKIP_REMEDIATION, RequestNote, malformed)
    return PodAnnotations(
        intent=None if intent is None else Intent(**dict(intent)),
        history=History() if history is None else History(**dict(history)),
        user_cordon=None if cordon is None else UserCordon(cordon.reason, cordon.at, cordon.lift),
        recycle_requested=None if request is None else request.reason,
        skip=None if skip is None else skip.reason,
        malformed=tuple(malformed),
    )


def wish(text: str | None) -> str | None:
    """The reason of a person's wish written as plain words: "" without one, None where it is not wished.

    ``false``, ``no``, ``off``, ``n``, ``f``, ``0``, ``null`` and ``none`` say no; ``true``, ``yes``, ``on``,
    ``y``, ``t``, ``1`` and an empty value say yes without a reason; other words are the reason.
    """
    if text is None:
        return None
    word = text.strip()
    if word.lower() in _NO:
        return None
    return "" if word.lower() in _YES else word


def _wish(annotations: Mapping[str, str], key: str, model: type[N], malformed: list[str]) -> N | None:
    """A person's wish: JSON of this form, or plain words. Broken or foreign JSON is named, and no wish."""
    text = annotations.get(key)
    reason = wish(text)
    if text is None or reason is None:
        return None
    if not reason.startswith(("{", "[", '"')):
        return model.model_validate({"reason": reason})
    try:
        return model.model_validate_json(reason)
    except ValidationError:
        malformed.append(key)
        return None
