"""The tables that `faultline label` writes: columns, units, the meaning of null, and typed rows.

The schemas are fixed and versioned; they are never inferred from rows. `TABLES` names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from schemas.log import FailurePoint
from schemas.rejects import REJECTED_SCHEMA

LABEL_SCHEMA_VERSION = "1.1"


class Label(StrEnum):
    """The labels a turn can abstain from: the names that appear in `abstained`."""

    GOAL = "goal"
    SUCCESS = "success"
    INTENT = "intent"
    SLOTS = "slots"
    FAILURE_POINT = "failure_point"
    REPHRASE = "rephrase"


class Signal(StrEnum):
    """Feedback that a user gave, explicitly or by what they did next."""

    BARGE_IN = "barge_in"
    REPHRASE = "rephrase"
    REPEAT = "repeat"
    CORRECTION = "correction"
    GIVE_UP = "give_up"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    SURVEY_SUCCESS = "survey_success"
    SURVEY_FAILURE = "survey_failure"


class SlotLabel(Struct):
    """One slot that the user meant."""

    name: str
    value: str
    start: int | None
    end: int | None
    confidence: float


class TurnLabels(Struct):
    """One row of `turns`, less the run's provenance. Names as in `TURNS_SCHEMA`."""

    dialogue_id: str
    turn_index: int
    goal_id: str
    is_goal_start: bool
    intent: str | None
    intent_confidence: float | None
    slots: list[SlotLabel]
    failure_point: FailurePoint
    failure_point_confidence: float
    failure_point_probabilities: dict[str, float]
    defect_probability: float
    rephrase_of: int | None
    feedback_signals: list[Signal]
    abstained: list[Label]


class GoalLabels(Struct):
    """One row of `goals`."""

    dialogue_id: str
    goal_id: str
    turn_indexes: list[int]
    intent: str | None
    success: bool
    success_confidence: float
    failure_point: FailurePoint
    failure_turn: int | None


class DialogueLabels(Struct):
    """One row of `dialogues`, with the rows of its turns and goals."""

    dialogue_id: str
    turn_count: int
    goal_count: int
    defect_count: int
    success: bool
    success_confidence: float
    turns: list[TurnLabels]
    goals: list[GoalLabels]
    shortened_turns: int = 0
    """turns of which a text was too long to be read whole; counted in the run's summary, no column"""


class Provenance(Struct, frozen=True):
    """Where labels come from: the same for every row of a run."""

    run_id: str
    model_uri: str
    model_version: str
    schema_version: str = LABEL_SCHEMA_VERSION


def _field(name: str, kind: pa.DataType, description: str, *, null: str | None = None, **more: str) -> pa.Field:
    metadata = {"description": description, **more}
    if null is not None:
        metadata["null"] = null
    return pa.field(name, kind, nullable=null is not None, metadata=metadata)


_PROBABILITY = "probability, 0 to 1"
_SLOTS = pa.list_(
    pa.struct(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("value", pa.string(), nullable=False),
            pa.field(
                "start",
                pa.int32(),
                metadata={"unit": "characters of the turn's text", "null": "not a span of it"},
            ),
            pa.field(
                "end",
                pa.int32(),
                metadata={"unit": "characters, one past the last", "null": "not a span of it"},
            ),
            pa.field("confidence", pa.float32(), nullable=False, metadata={"unit": _PROBABILITY}),
        ]
    )
)
_PROBABILITIES = pa.struct([pa.field(point.value, pa.float32(), nullable=False) for point in FailurePoint])
_FAILURE_POINTS = "|".join(FailurePoint)
_METADATA = {"faultline.label_schema_version": LABEL_SCHEMA_VERSION}

TURNS_SCHEMA = pa.schema(
    [
        _field("dialogue_id", pa.string(), "the dialogue, as in the input"),
        _field("turn_index", pa.int32(), "position in the input dialogue, from 0"),
        _field("goal_id", pa.string(), "the goal that the turn belongs to; unique in the run"),
        _field("is_goal_start", pa.bool_(), "this turn is the goal's first"),
        _field("intent", pa.string(), "what the user meant", null="no intent is known for this assistant"),
        _field("intent_confidence", pa.float32(), "of intent", unit=_PROBABILITY, null="intent is null"),
        _field("slots", _SLOTS, "the values the user meant; empty: none"),
        _field(
            "failure_point",
            pa.string(),
            "the likeliest failure, if failures are likely enough; else correct",
            enum=_FAILURE_POINTS,
        ),
        _field("failure_point_confidence", pa.float32(), "of failure_point", unit=_PROBABILITY),
        _field("failure_point_probabilities", _PROBABILITIES, "sums to 1", unit=_PROBABILITY),
        _field("defect_probability", pa.float32(), "1 - P(correct)", unit=_PROBABILITY),
        _field("rephrase_of", pa.int32(), "index of the turn that this one asks again", null="it is no rephrase"),
        _field("feedback_signals", pa.list_(pa.string()), "feedback seen at this turn", enum="|".join(Signal)),
        _field("abstained", pa.list_(pa.string()), "labels not to be trusted in this row", enum="|".join(Label)),
        _field("run_id", pa.string(), "the run; the same for the same input, model and options"),
        _field("model_uri", pa.string(), "the model as it was asked for"),
        _field("model_version", pa.string(), "digest of the model's files"),
        _field("schema_version", pa.string(), "of these tables"),
    ],
    metadata=_METADATA,
)

GOALS_SCHEMA = pa.schema(
    [
        _field("dialogue_id", pa.string(), "the dialogue, as in the input"),
        _field("goal_id", pa.string(), "unique in the run"),
        _field("turn_indexes", pa.list_(pa.int32()), "the goal's turns, in order; they need not be adjacent"),
        _field("intent", pa.string(), "of the turn that opened the goal", null="no intent is known"),
        _field("success", pa.bool_(), "the goal was reached"),
        _field("success_confidence", pa.float32(), "of success", unit=_PROBABILITY),
        _field(
            "failure_point",
            pa.string(),
            "of the first turn that failed for good, or correct",
            enum=_FAILURE_POINTS,
        ),
        _field("failure_turn", pa.int32(), "index of that turn", null="no turn failed for good"),
    ],
    metadata=_METADATA,
)

DIALOGUES_SCHEMA = pa.schema(
    [
        _field("dialogue_id", pa.string(), "the dialogue, as in the input"),
        _field("turn_count", pa.int32(), "turns in it", unit="turns"),
        _field("goal_count", pa.int32(), "goals in it", unit="goals"),
        _field("defect_count", pa.int32(), "turns whose failure point is not correct", unit="turns"),
        _field("success", pa.bool_(), "every goal was reached"),
        _field("success_confidence", pa.float32(), "of success", unit=_PROBABILITY),
    ],
    metadata=_METADATA,
)

TABLES: dict[str, pa.Schema] = {
    "turns": TURNS_SCHEMA,
    "goals": GOALS_SCHEMA,
    "dialogues": DIALOGUES_SCHEMA,
    "rejected": REJECTED_SCHEMA.with_metadata(_METADATA),
}


def to_tables(dialogues: Sequence[DialogueLabels], provenance: Provenance) -> dict[str, pa.Table]:
    """`turns`, `goals` and `dialogues` of these dialogues, in their order."""
    run = msgspec.structs.asdict(provenance)
    rows: dict[str, list[dict[str, Any]]] = {"turns": [], "goals": [], "dialogues": []}
    for dialogue in dialogues:
        row = msgspec.to_builtins(dialogue)
        rows["turns"] += [turn | run for turn in row.pop("turns")]
        rows["goals"] += row.pop("goals")
        del row["shortened_turns"]
        rows["dialogues"].append(row)
    return {name: pa.Table.from_pylist(rows[name], schema=TABLES[name]) for name in rows}
