"""The canonical dialogue log: what every reader produces and what the labelers read.

One `Dialogue` is one session of one user with one assistant; one `Turn` is one user request with the
system response that follows it. The structs below are the specification: they decode and validate JSON
(`decode`), give the JSON Schema that `faultline schema` prints (`json_schema`), and have a fixed Arrow
schema (`ARROW_SCHEMA`) for logs that are kept as Parquet.

In every field null means "the log does not say", never "no".
Unknown fields are ignored, so that a log may carry more than this.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
import pyarrow as pa
from msgspec import Meta, Struct

from schemas.rejects import RecordError, RejectReason, Stage

LOG_SCHEMA_VERSION = "1.2"
TURN_LIMIT = 20_000
"""Turns of a dialogue at most: it is labelled whole."""
OBJECT_LIMIT = 1_000_000
"""JSON objects in a record at most: decoded each takes some hundred bytes, of `{}` two on disk."""
SLOT_LIMIT = 10_000
"""Slots of a hypothesis at most: those of one name are compared with each other."""
ID_LIMIT = 1_000
"""Characters of the id of a dialogue or session at most: it stands in every row of its turns and goals."""
SPAN_TEXT = 4_096
"""Characters of a text in which the values of slots are looked for."""

T = TypeVar("T")


class FailurePoint(StrEnum):
    """The first component that failed in a way that the system did not recover from, upstream first."""

    CORRECT = "correct"
    WAKE = "wake"
    ASR = "asr"
    NLU = "nlu"
    ER = "er"
    RESULT = "result"


class ExplicitFeedback(StrEnum):
    """What the user said of a response when asked, or by a button."""

    POSITIVE = "positive"
    NEGATIVE = "negative"


class Record(Struct, kw_only=True, omit_defaults=True):
    """Base of every record of the log: keyword-only, defaults left out when written."""


Score = Annotated[
    float | None,
    Meta(
        description="The component's own confidence, in its own unit (probability, log probability, …); "
        "higher is better. Null: not logged."
    ),
]


Ratings = Annotated[
    list[float] | None,
    Meta(
        description="What several people said of it, a number each, higher is better, in the log's own unit; in the "
        "same order of people throughout a dialogue, where the log knows who is who. Null: nobody was asked."
    ),
]


Position = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class AsrHypothesis(Record):
    """One entry of the recogniser's n-best list."""

    text: Annotated[str, Meta(description="The words recognised; empty if nothing was.")]
    score: Score = None


class Slot(Record):
    """A named value in a request."""

    name: Annotated[str, Meta(min_length=1, description="Slot name, as the assistant's ontology has it.")]
    value: Annotated[str, Meta(description="The value; for an open request, the slot asked for.")]
    start: Annotated[
        Position | None, Meta(description="First character in the turn's text. Null: not a span of it.")
    ] = None
    end: Annotated[Position | None, Meta(description="One past the last character. Null: not a span of it.")] = None
    score: Score = None

    @classmethod
    def said_in(cls, text: str, name: str, value: str, score: float | None = None) -> Slot:
        """The slot with the span at which `text` has `value` as whole words, in upper or lower case.

        The span is null where `text` does not have it in its first `SPAN_TEXT` characters.
        """
        start = _found(fold(value), fold(text[:SPAN_TEXT])) if 0 < len(value.strip()) <= SPAN_TEXT else None
        end = None if start is None else start + len(value)
        return cls(name=name, value=value, start=start, end=end, score=score)


def fold(text: str) -> str:
    """The text in lower case, of the same length: İ alone has two characters there."""
    return text.replace("İ", "i").lower()


def _found(value: str, text: str) -> int | None:
    """Where `text` has `value` as whole words.

    Not by a regular expression, which takes as many steps as the two lengths multiplied.
    """
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        if not (_in_word(text[start - 1 : start]) or _in_word(text[end : end + 1])):
            return start
        start = text.find(value, start + 1)
    return None


def _in_word(character: str) -> bool:
    return character == "_" or character.isalnum()


class NluHypothesis(Record):
    """One entry of the language understanding n-best list."""

    domain: str | None = None
    intent: str | None = None
    slots: list[Slot] = []
    score: Score = None


class EntityResolution(Record):
    """One candidate that entity resolution found for a slot; candidates of a slot come best first."""

    slot: str
    value: Annotated[str | None, Meta(description="The slot value that was looked up.")] = None
    entity_id: str | None = None
    name: Annotated[str | None, Meta(description="The resolved entity's display name.")] = None
    score: Score = None


class Response(Record):
    """What the assistant said and did."""

    text: str | None = None
    action: Annotated[str | None, Meta(description="The action taken, as the assistant names it.")] = None
    status: Annotated[str | None, Meta(description="How the action ended, e.g. success, failure, unsupported.")] = None


class TurnAnnotation(Record):
    """What a person (or a simulator) says is true of a turn. All optional."""

    transcript: Annotated[str | None, Meta(description="What the user really said.")] = None
    domain: Annotated[str | None, Meta(description="Of the intent: the service that has it in the ontology.")] = None
    intent: str | None = None
    slots: Annotated[list[Slot] | None, Meta(description="Null: not annotated. Empty: no slots.")] = None
    goal_id: Annotated[str | None, Meta(description="Turns with the same id belong to one goal.")] = None
    failure_point: FailurePoint | None = None
    rephrase_of: Annotated[
        Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None,
        Meta(description="Index of the turn asked again; -1: it is no rephrase."),
    ] = None
    ratings: Ratings = None


class Turn(Record):
    """One user request with the system response that follows it."""

    text: Annotated[
        str | None,
        Meta(
            description="What the assistant acted on: the typed text, or the first ASR hypothesis. "
            "May be left out where `asr` is given."
        ),
    ] = None
    turn_id: str | None = None
    started_at: Annotated[dt.datetime | None, Meta(description="RFC 3339; without an offset it is taken as UTC.")] = (
        None
    )
    ended_at: Annotated[dt.datetime | None, Meta(description="End of the user's request. RFC 3339, as started_at.")] = (
        None
    )
    wake_score: Score = None
    asr: Annotated[list[AsrHypothesis], Meta(description="Best first; empty for typed input.")] = []
    nlu: Annotated[list[NluHypothesis], Meta(description="Best first; the system acted on the first.")] = []
    entities: list[EntityResolution] = []
    response: Response | None = None
    barge_in: Annotated[bool | None, Meta(description="The user spoke over this turn's response.")] = None
    feedback: ExplicitFeedback | None = None
    annotation: TurnAnnotation | None = None


class DialogueFeedback(Record):
    """What the user said of the whole dialogue, in a survey or by stars."""

    success: Annotated[bool | None, Meta(description="The user says that the goal was reached.")] = None
    rating: Annotated[
        Annotated[float, Meta(ge=0.0, le=1.0)] | None,
        Meta(description="Satisfaction, scaled to 0 (worst) to 1 (best)."),
    ] = None


class GoalAnnotation(Record):
    """What is true of one goal."""

    goal_id: Annotated[str, Meta(min_length=1)]
    intent: str | None = None
    success: bool | None = None


class DialogueAnnotation(Record):
    """What is true of a whole dialogue."""

    success: bool | None = None
    goals: Annotated[list[GoalAnnotation] | None, Meta(description="Null: not annotated.")] = None
    ratings: Ratings = None


class Dialogue(Record):
    """One session of one user with one assistant, in time order."""

    dialogue_id: Annotated[str, Meta(min_length=1, description="Unique within the input of a run.")]
    turns: Annotated[list[Turn], Meta(min_length=1, description="In time order.")]
    started_at: Annotated[dt.datetime | None, Meta(description="RFC 3339; without an offset it is taken as UTC.")] = (
        None
    )
    locale: Annotated[str | None, Meta(description="BCP 47 tag, e.g. en-GB.")] = None
    device: Annotated[str | None, Meta(description="Kind of device or channel, e.g. phone, speaker.")] = None
    user_id: Annotated[str | None, Meta(description="A pseudonym, never a name.")] = None
    opening: Annotated[str | None, Meta(description="What the assistant said before the first request.")] = None
    services: Annotated[
        list[str] | None,
        Meta(description="Which of the ontology's services could be reached, e.g. enabled skills. Null: all."),
    ] = None
    feedback: DialogueFeedback | None = None
    annotation: DialogueAnnotation | None = None


class TurnEvent(Turn, kw_only=True, omit_defaults=True):
    """One turn on its own, as event logs keep it; `pipelines.sessions` groups them into dialogues.

    Rows with the same `session_id` belong together unless `started_at` shows a gap longer than the job's
    inactivity gap. A row whose `event_id` (or, without one, whose whole content) was seen before in its
    session is a duplicate.
    """

    session_id: Annotated[str, Meta(min_length=1)]
    started_at: Annotated[dt.datetime, Meta(description="RFC 3339; without an offset taken as UTC.")]
    event_id: str | None = None
    locale: str | None = None
    device: str | None = None
    user_id: str | None = None


_EMPTY_TURNS = re.compile(r"length >= 1.*at `\$\.turns`")
_MISSING = re.compile(r"missing required field")


def decode(record: bytes | Mapping[str, Any], as_type: type[T], decoder: msgspec.json.Decoder[T] | None = None) -> T:
    """One record, as `as_type`.

    `record` is JSON text in UTF-8, or a mapping (a Parquet row, an element of a JSON array).
    `decoder` is a ready `msgspec.json.Decoder` of `as_type`, for callers in a loop.

    Raises `RecordError` with the reason: too large, not UTF-8, not JSON, a missing field, a wrong type or no turns.
    """
    if isinstance(record, bytes) and len(record) > OBJECT_LIMIT and record.count(b"{") > OBJECT_LIMIT:
        message = f"the record has more than {OBJECT_LIMIT:,} JSON objects"
        raise RecordError(Stage.PARSE, RejectReason.RECORD_TOO_LARGE, message)
    try:
        if not isinstance(record, bytes):
            return msgspec.convert(_without_nulls(record), type=as_type)
        # Checked first: the JSON decoder looks at the bytes of the fields it keeps, not of the others.
        record.decode("utf-8")
        try:
            return decoder.decode(record) if decoder else msgspec.json.decode(record, type=as_type)
        except msgspec.ValidationError as error:
            if "got `null`" not in str(error):
                raise
            return msgspec.convert(_without_nulls(msgspec.json.decode(record)), type=as_type)
    except UnicodeDecodeError as error:
        raise RecordError(Stage.PARSE, RejectReason.INVALID_UTF8, str(error)) from None
    except RecursionError:
        raise RecordError(Stage.PARSE, RejectReason.INVALID_JSON, "nested too deeply") from None
    except msgspec.ValidationError as error:
        message = str(error)
        if _EMPTY_TURNS.search(message):
            raise RecordError(Stage.VALIDATE, RejectReason.NO_TURNS, message) from None
        reason = RejectReason.MISSING_FIELD if _MISSING.search(message) else RejectReason.WRONG_TYPE
        raise RecordError(Stage.VALIDATE, reason, message) from None
    except msgspec.DecodeError as error:
        raise RecordError(Stage.PARSE, RejectReason.INVALID_JSON, str(error)) from None


def _without_nulls(value: Any) -> Any:
    """The same value without null members: a null list is an absent list, as a null string is."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value


def validate(dialogue: Dialogue) -> Dialogue:
    """The same dialogue with what can be derived filled in: text from ASR, UTC times, start time.

    Raises `RecordError` for what a type cannot say: more turns than `TURN_LIMIT`, more slots of a hypothesis than
    `SLOT_LIMIT`, an id longer than `ID_LIMIT`, a turn without any text, a number that is not finite, a slot span
    outside of its text. Every reader's output passes here.
    """
    if not dialogue.dialogue_id:
        raise RecordError(Stage.VALIDATE, RejectReason.MISSING_FIELD, "the dialogue's id is empty")
    _check_id(dialogue.dialogue_id)
    if not dialogue.turns:
        raise RecordError(Stage.VALIDATE, RejectReason.NO_TURNS, "the dialogue has no turns")
    if len(dialogue.turns) > TURN_LIMIT:
        message = f"the dialogue has {len(dialogue.turns):,} turns; the limit is {TURN_LIMIT:,}"
        raise RecordError(Stage.VALIDATE, RejectReason.RECORD_TOO_LARGE, message)
    for index, turn in enumerate(dialogue.turns):
        _complete(turn, index)
        annotated = turn.annotation.rephrase_of if turn.annotation else None
        if annotated is not None and annotated >= index:
            raise RecordError(
                Stage.VALIDATE, RejectReason.INVALID_VALUE, f"turn {index} cannot rephrase turn {annotated}"
            )
    if dialogue.annotation is not None:
        _check_ratings(dialogue.annotation.ratings, "the dialogue")
    dialogue.started_at = as_utc(dialogue.started_at) or dialogue.turns[0].started_at
    return dialogue


def validate_event(event: TurnEvent) -> TurnEvent:
    """The same event with what can be derived filled in, as `validate` does for a turn of a dialogue.

    An annotated `rephrase_of` counts turns of the session: it is checked once the session is a dialogue.
    """
    _check_id(event.session_id)
    _complete(event, 0)
    return event


def as_utc(time: dt.datetime | None) -> dt.datetime | None:
    """The same time in UTC; one without an offset is taken as UTC.

    Raises `RecordError` where UTC has no such year (before 1, after 9999).
    """
    if time is None:
        return None
    try:
        return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
    except OverflowError:
        raise RecordError(
            Stage.VALIDATE, RejectReason.INVALID_VALUE, f"{time.isoformat()} is not a time in UTC"
        ) from None


def from_unix(seconds: float) -> dt.datetime:
    """Seconds since 1970-01-01 in UTC, as a time. Raises `RecordError` where they are beyond the calendar."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        raise RecordError(
            Stage.PARSE, RejectReason.INVALID_VALUE, f"{seconds} is not a time in seconds since 1970"
        ) from None


def _check_id(name: str) -> None:
    if len(name) > ID_LIMIT:
        message = f"the id has {len(name):,} characters; the limit is {ID_LIMIT:,}"
        raise RecordError(Stage.VALIDATE, RejectReason.INVALID_VALUE, message)


def _check_ratings(ratings: list[float] | None, of: str) -> None:
    if not all(map(math.isfinite, ratings or [])):
        raise RecordError(Stage.VALIDATE, RejectReason.INVALID_VALUE, f"{of} has a rating that is not finite")


def _complete(turn: Turn, index: int) -> None:
    if turn.text is None:
        if not turn.asr:
            raise RecordError(
                Stage.VALIDATE,
                RejectReason.MISSING_TEXT,
                f"turn {index} has neither `text` nor an entry in `asr`",
            )
        turn.text = turn.asr[0].text
    elif not turn.text.strip() and not turn.asr:
        raise RecordError(Stage.VALIDATE, RejectReason.MISSING_TEXT, f"turn {index} has an empty `text` and no `asr`")
    turn.started_at = as_utc(turn.started_at)
    turn.ended_at = as_utc(turn.ended_at)
    _check_turn(turn, index)


def _check_turn(turn: Turn, index: int) -> None:
    assert turn.text is not None
    scores = [turn.wake_score]
    scores += [hypothesis.score for hypothesis in turn.asr]
    scores += [entity.score for entity in turn.entities]
    slots = list(turn.annotation.slots or []) if turn.annotation else []
    for hypothesis in turn.nlu:
        if len(hypothesis.slots) > SLOT_LIMIT:
            message = f"turn {index} has a hypothesis of {len(hypothesis.slots):,} slots; the limit is {SLOT_LIMIT:,}"
            raise RecordError(Stage.VALIDATE, RejectReason.RECORD_TOO_LARGE, message)
        scores.append(hypothesis.score)
        slots += hypothesis.slots
    scores += [slot.score for slot in slots]
    if not all(score is None or math.isfinite(score) for score in scores):
        raise RecordError(Stage.VALIDATE, RejectReason.INVALID_VALUE, f"turn {index} has a score that is not finite")
    if turn.annotation is not None:
        _check_ratings(turn.annotation.ratings, f"turn {index}")
    for slot in slots:
        if not slot.name:
            raise RecordError(
                Stage.VALIDATE, RejectReason.INVALID_VALUE, f"turn {index} has a slot {slot.value!r} without a name"
            )
        if (slot.start is None) != (slot.end is None):
            raise RecordError(
                Stage.VALIDATE, RejectReason.INVALID_VALUE, f"turn {index}: slot {slot.name} has half a span"
            )
        if slot.start is not None and slot.end is not None and not slot.start <= slot.end <= len(turn.text):
            raise RecordError(
                Stage.VALIDATE,
                RejectReason.INVALID_VALUE,
                f"turn {index}: the span {slot.start}..{slot.end} of slot {slot.name} is outside of its text",
            )


def json_schema(as_type: type[Struct] = Dialogue) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one line of a canonical log."""
    schema = msgspec.json.schema(as_type)
    for definition in schema["$defs"].values():
        for name, member in definition.get("properties", {}).items():
            # As in `decode`: a null list is an absent list.
            if name not in definition["required"] and member.get("type") == "array":
                definition["properties"][name] = {"anyOf": [member, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "version": LOG_SCHEMA_VERSION, **schema}


_STRING = pa.string()
_TIME = pa.timestamp("us", tz="UTC")
_FLOAT = pa.float64()
_SLOT = pa.struct(
    [("name", _STRING), ("value", _STRING), ("start", pa.int32()), ("end", pa.int32()), ("score", _FLOAT)]
)
_TURN = pa.struct(
    [
        ("text", _STRING),
        ("turn_id", _STRING),
        ("started_at", _TIME),
        ("ended_at", _TIME),
        ("wake_score", _FLOAT),
        ("asr", pa.list_(pa.struct([("text", _STRING), ("score", _FLOAT)]))),
        (
            "nlu",
            pa.list_(
                pa.struct([("domain", _STRING), ("intent", _STRING), ("slots", pa.list_(_SLOT)), ("score", _FLOAT)])
            ),
        ),
        (
            "entities",
            pa.list_(
                pa.struct(
                    [
                        ("slot", _STRING),
                        ("value", _STRING),
                        ("entity_id", _STRING),
                        ("name", _STRING),
                        ("score", _FLOAT),
                    ]
                )
            ),
        ),
        ("response", pa.struct([("text", _STRING), ("action", _STRING), ("status", _STRING)])),
        ("barge_in", pa.bool_()),
        ("feedback", _STRING),
        (
            "annotation",
            pa.struct(
                [
                    ("transcript", _STRING),
                    ("domain", _STRING),
                    ("intent", _STRING),
                    ("slots", pa.list_(_SLOT)),
                    ("goal_id", _STRING),
                    ("failure_point", _STRING),
                    ("rephrase_of", pa.int32()),
                    ("ratings", pa.list_(_FLOAT)),
                ]
            ),
        ),
    ]
)

ARROW_SCHEMA = pa.schema(
    [
        pa.field("dialogue_id", _STRING, nullable=False, metadata={"description": "unique within a run's input"}),
        pa.field("turns", pa.list_(_TURN), nullable=False, metadata={"description": "in time order, at least one"}),
        pa.field("started_at", _TIME, metadata={"unit": "microseconds, UTC", "null": "not logged"}),
        pa.field("locale", _STRING, metadata={"description": "BCP 47 tag", "null": "not logged"}),
        pa.field("device", _STRING, metadata={"description": "kind of device", "null": "not logged"}),
        pa.field("user_id", _STRING, metadata={"description": "pseudonym", "null": "not logged"}),
        pa.field("opening", _STRING, metadata={"description": "system prompt before the first request"}),
        pa.field("services", pa.list_(_STRING), metadata={"description": "services in reach", "null": "all"}),
        pa.field("feedback", pa.struct([("success", pa.bool_()), ("rating", _FLOAT)])),
        pa.field(
            "annotation",
            pa.struct(
                [
                    ("success", pa.bool_()),
                    (
                        "goals",
                        pa.list_(pa.struct([("goal_id", _STRING), ("intent", _STRING), ("success", pa.bool_())])),
                    ),
                    ("ratings", pa.list_(_FLOAT)),
                ]
            ),
        ),
    ],
    metadata={"faultline.log_schema_version": LOG_SCHEMA_VERSION},
)
