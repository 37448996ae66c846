"""The table of mistakes, row by row, for labels that are written out here."""

from __future__ import annotations

from typing import Any

import msgspec

from pipelines.mistakes import MISTAKES_SCHEMA, mistakes
from schemas.labels import DialogueLabels
from schemas.log import Dialogue

DIALOGUE = msgspec.convert(
    {
        "dialogue_id": "d",
        "turns": [
            {
                "text": "play a dell",
                "nlu": [{"intent": "play_music", "slots": [{"name": "artist", "value": "A Dell"}]}],
                "response": {"text": "Sorry, no such artist.", "action": "play_music"},
                "annotation": {
                    "transcript": "play adele",
                    "goal_id": "music",
                    "intent": "play_music",
                    "slots": [{"name": "artist", "value": "adele"}],
                    "failure_point": "asr",
                },
            },
            {
                "text": "play adele",
                "annotation": {
                    "goal_id": "music",
                    "intent": "play_music",
                    "slots": [{"name": "artist", "value": "adele"}],
                    "failure_point": "correct",
                },
            },
            {
                "text": "what time is it",
                "annotation": {"goal_id": "clock", "intent": "tell_time", "slots": [], "failure_point": "correct"},
            },
        ],
        "annotation": {"success": False, "goals": [{"goal_id": "music", "success": False}, {"goal_id": "clock"}]},
    },
    Dialogue,
)


def turn(index: int, **labels: Any) -> dict[str, Any]:
    return {
        "dialogue_id": "d",
        "turn_index": index,
        "goal_id": "d#0",
        "is_goal_start": index == 0,
        "intent": "play_music",
        "intent_confidence": 0.9,
        "slots": [],
        "failure_point": "correct",
        "failure_point_confidence": 0.6,
        "failure_point_probabilities": {},
        "defect_probability": 0.4,
        "rephrase_of": None,
        "feedback_signals": [],
        "abstained": [],
        **labels,
    }


def labelled(*turns: dict[str, Any]) -> DialogueLabels:
    goal = {"dialogue_id": "d", "goal_id": "d#0", "turn_indexes": [0, 1, 2], "intent": "play_music"}
    judged = {"success": True, "success_confidence": 0.8}
    return msgspec.convert(
        {
            "dialogue_id": "d",
            "turn_count": 3,
            "goal_count": 1,
            "defect_count": 0,
            **judged,
            "turns": turns,
            "goals": [goal | judged | {"failure_point": "correct", "failure_turn": None}],
        },
        DialogueLabels,
    )


def found(*turns: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows by label."""
    table = mistakes([DIALOGUE], [labelled(*turns)])
    assert table.schema == MISTAKES_SCHEMA
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["label"], []).append(row)
    return rows


ADELE = {"name": "artist", "value": "Adele", "start": 5, "end": 10, "confidence": 0.7}
ARTIST = {"name": "artist", "value": "what", "start": 0, "end": 4, "confidence": 0.3}


def test_every_label_that_is_not_as_annotated_is_a_row() -> None:
    rows = found(turn(0, abstained=["failure_point", "success"]), turn(1, slots=[ADELE]), turn(2, slots=[ARTIST]))
    said = {
        label: [(row["turn_index"], row["annotated"], row["labelled"], row["confidence"]) for row in of_label]
        for label, of_label in rows.items()
    }
    assert said == {
        "failure_point": [(0, "asr", "correct", 0.6)],
        "success": [(None, "failure", "success", 0.8)],
        "goal_success": [(0, "failure", "success", 0.8)],
        "goal_boundary": [(2, "starts", "goes on", None)],
        "intent": [(2, "tell_time", "play_music", 0.9)],
        # Where a slot is only missing, nothing says how sure: it comes last.
        "slots": [(2, "none", "artist=what", 0.3), (0, "artist=adele", "none", None)],
        "rephrase": [(1, "of turn 0", "none", None)],
    }
    assert [row["abstained"] for row in rows["failure_point"] + rows["goal_success"]] == [True, True]


def test_a_row_shows_what_was_said_understood_and_done() -> None:
    (row,) = found(turn(0), turn(1), turn(2))["failure_point"]
    assert row["text"] == "play a dell"
    assert row["transcript"] == "play adele"
    assert row["understood"] == "play_music(artist=a dell)"
    assert row["action"] == "play_music"
    assert row["response"] == "Sorry, no such artist."


def test_the_surest_come_first() -> None:
    sure = [turn(0, failure_point_confidence=0.55), turn(1), turn(2)]
    for index in (1, 2):
        sure[index] |= {"failure_point": "nlu", "failure_point_confidence": 0.5 + index / 10}
    assert [row["turn_index"] for row in found(*sure)["failure_point"]] == [2, 1, 0]


def test_what_is_right_is_no_row() -> None:
    rows = found(turn(0, failure_point="asr"), turn(1, slots=[ADELE], rephrase_of=0), turn(2, is_goal_start=True))
    assert set(rows) == {"success", "goal_success", "intent", "slots"}
    assert [row["turn_index"] for row in rows["slots"]] == [0]
