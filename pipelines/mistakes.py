"""The mistakes of an evaluation: every label that is not as annotated, with what a reader needs to see why.

A table that analysts query, and scientists read before they believe a score. The labels, and when one of them counts as
wrong, are those of the scores (`pipelines.scoring`). It has the users' words in it, so it stays in the output folder,
and is not logged to MLflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from labelers.failure_point import POINTS
from pipelines.scoring import (
    OUTCOMES,
    FailurePoints,
    Frame,
    annotated_boundaries,
    annotated_success,
    annotated_turns,
    asked_rephrases,
    exact_slots,
    goals_of_success,
    labelled_goal,
)
from schemas.labels import DialogueLabels, Label
from schemas.log import Dialogue, NluHypothesis

MISTAKES_SCHEMA = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("dialogue_id", pa.string(), nullable=False),
        pa.field("turn_index", pa.int32()),
        pa.field("annotated", pa.string(), nullable=False),
        pa.field("labelled", pa.string(), nullable=False),
        pa.field("confidence", pa.float64()),
        pa.field("abstained", pa.bool_(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("transcript", pa.string()),
        pa.field("understood", pa.string()),
        pa.field("action", pa.string()),
        pa.field("response", pa.string()),
    ]
)
"""The README's section *`faultline evaluate`* says what the columns mean."""
_NONE = "none"
"""Written where nothing is annotated or labelled: no intent, no slots, no rephrase."""


@dataclass(frozen=True)
class _Mistake:
    """One row; names as in `MISTAKES_SCHEMA`."""

    label: str
    dialogue_id: str
    turn_index: int | None
    annotated: str
    labelled: str
    confidence: float | None
    abstained: bool
    text: str | None = None
    transcript: str | None = None
    understood: str | None = None
    action: str | None = None
    response: str | None = None


def mistakes(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> pa.Table:
    """One row a mistake: label by label, the surest first."""
    rows: list[dict[str, object]] = []
    for kind in (_failure_points, _success, _goal_success, _boundaries, _intents, _slots, _rephrases):
        rows += map(asdict, sorted(kind(dialogues, labels), key=_surest_first))
    return pa.Table.from_pylist(rows, schema=MISTAKES_SCHEMA)


def _surest_first(mistake: _Mistake) -> float:
    return 1.0 if mistake.confidence is None else -mistake.confidence


# Of each label


def _failure_points(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    asked = FailurePoints.of(dialogues)
    for number, index, truth in zip(asked.dialogues, asked.indexes, asked.truth.tolist(), strict=True):
        turn = labels[number].turns[index]
        if turn.failure_point != POINTS[truth]:
            yield _of_turn(
                dialogues[number],
                index,
                "failure_point",
                (str(POINTS[truth]), str(turn.failure_point)),
                turn.failure_point_confidence,
                Label.FAILURE_POINT in turn.abstained,
            )


def _success(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    for number, truth in zip(*annotated_success(dialogues), strict=True):
        labelled = labels[number]
        if labelled.success != truth:
            answers = OUTCOMES[int(truth)], OUTCOMES[int(labelled.success)]
            # Whether a dialogue succeeded is abstained from by goals alone.
            yield _Mistake(
                "success", labelled.dialogue_id, None, *answers, confidence=labelled.success_confidence, abstained=False
            )


def _goal_success(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    """At the annotated goal's first turn."""
    for asked in goals_of_success(dialogues):
        labelled = labels[asked.dialogue]
        goal = labelled_goal(labelled, asked.turns)
        if goal.success != asked.success:
            yield _of_turn(
                dialogues[asked.dialogue],
                min(asked.turns),
                "goal_success",
                (OUTCOMES[int(asked.success)], OUTCOMES[int(goal.success)]),
                goal.success_confidence,
                Label.SUCCESS in labelled.turns[goal.turn_indexes[0]].abstained,
            )


def _boundaries(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    for number, index, changed in annotated_boundaries(dialogues):
        turn = labels[number].turns[index]
        if turn.is_goal_start != changed:
            answers = ("goes on", "starts")
            yield _of_turn(
                dialogues[number],
                index,
                "goal_boundary",
                (answers[int(changed)], answers[int(turn.is_goal_start)]),
                None,
                Label.GOAL in turn.abstained,
            )


def _intents(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    for number, index, annotation in annotated_turns(dialogues):
        turn = labels[number].turns[index]
        if annotation.intent is not None and annotation.intent != turn.intent:
            yield _of_turn(
                dialogues[number],
                index,
                "intent",
                (annotation.intent, turn.intent or _NONE),
                turn.intent_confidence,
                Label.INTENT in turn.abstained,
            )


def _slots(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    """As sure as the surest slot that is not annotated; where slots are only missing, nothing says how sure."""
    for number, index, annotation in annotated_turns(dialogues):
        turn = labels[number].turns[index]
        if annotation.slots is None:
            continue
        truth, said = (exact_slots(Frame(None, slots)) for slots in (annotation.slots, turn.slots))
        if truth != said:
            wrong = [slot.confidence for slot in turn.slots if exact_slots(Frame(None, [slot])) - truth]
            yield _of_turn(
                dialogues[number],
                index,
                "slots",
                (_listed(truth), _listed(said)),
                max(wrong, default=None),
                Label.SLOTS in turn.abstained,
            )


def _rephrases(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels]) -> Iterator[_Mistake]:
    for number, index, back in asked_rephrases(dialogues):
        turn = labels[number].turns[index]
        if (back > 0) != (turn.rephrase_of is not None):
            answers = index - back if back else None, turn.rephrase_of
            one, other = (_NONE if each is None else f"of turn {each}" for each in answers)
            yield _of_turn(dialogues[number], index, "rephrase", (one, other), None, Label.REPHRASE in turn.abstained)


# What a reader needs to see


def _of_turn(
    dialogue: Dialogue, index: int, label: str, answers: tuple[str, str], confidence: float | None, abstained: bool
) -> _Mistake:
    turn = dialogue.turns[index]
    return _Mistake(
        label,
        dialogue.dialogue_id,
        index,
        *answers,
        confidence=confidence,
        abstained=abstained,
        text=turn.text,
        transcript=turn.annotation.transcript if turn.annotation else None,
        understood=_frame(turn.nlu[0]) if turn.nlu else None,
        action=turn.response.action if turn.response else None,
        response=turn.response.text if turn.response else None,
    )


def _frame(hypothesis: NluHypothesis) -> str:
    slots = exact_slots(Frame(None, hypothesis.slots))
    return f"{hypothesis.intent or _NONE}({_listed(slots) if slots else ''})"


def _listed(slots: Iterable[tuple[object, ...]]) -> str:
    return ", ".join(sorted(f"{name}={value}" for name, value in slots)) or _NONE
