"""`tiage`: one turn an utterance of the first speaker, one goal a topic."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


def goals(dialogue: Dialogue) -> list[str | None]:
    return [turn.annotation.goal_id for turn in dialogue.turns if turn.annotation]


@pytest.fixture
def dialogue(dialogues: Dialogues) -> Dialogue:
    return dialogues("tiage")[0]


def test_the_second_speaker_answers_the_first(dialogue: Dialogue) -> None:
    assert dialogue.dialogue_id == "tiage-1"
    assert [turn.text for turn in dialogue.turns] == [
        "hi , how are you ?",
        "i never run .",
        "two cats .",
        "what do you paint ?",
    ]
    assert [turn.response.text if turn.response else None for turn in dialogue.turns] == [
        "fine , just back from a run .",
        "do you have pets ?",
        "nice . i paint .",
        None,
    ]


def test_a_topic_that_the_answer_changes_to_starts_with_the_next_turn(dialogue: Dialogue) -> None:
    assert goals(dialogue) == ["0", "0", "1", "2"]


def test_a_topic_of_an_answer_alone_is_no_goal(dialogues: Dialogues) -> None:
    dialogue = dialogues("tiage")[1]
    assert goals(dialogue) == ["0", "2"]
    assert dialogue.annotation is not None
    assert dialogue.annotation.goals is not None
    assert [goal.goal_id for goal in dialogue.annotation.goals] == ["0", "2"]


def test_a_dialogue_without_segments_is_not_annotated(dialogues: Dialogues) -> None:
    dialogue = dialogues("tiage")[2]
    assert dialogue.annotation is None
    assert dialogue.turns[0].annotation is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"utterances": []}, RejectReason.NO_TURNS),
        ({"utterances": [""]}, RejectReason.MISSING_TEXT),
        ({"utterances": "hi"}, RejectReason.WRONG_TYPE),
        ({"segments": [2]}, RejectReason.INVALID_VALUE),
        ({"segments": [1, 0]}, RejectReason.WRONG_TYPE),
    ],
)
def test_a_bad_dialogue_is_rejected(change: dict[str, object], reason: RejectReason) -> None:
    log_format = get_format("tiage")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps({"dial_id": 1, "utterances": ["hi"]} | change).encode())
    assert error.value.reason == reason
