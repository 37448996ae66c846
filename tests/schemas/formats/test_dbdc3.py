"""`dbdc3`: chats, and what many people said of each response."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


@pytest.fixture
def chat(dialogues: Dialogues) -> Dialogue:
    return dialogues("dbdc3")[0]


def test_a_turn_is_what_the_user_said_with_what_the_system_answered(chat: Dialogue) -> None:
    assert chat.opening == "Hi, what do you like?"
    assert [(turn.text, turn.response.text if turn.response else None) for turn in chat.turns] == [
        ("I like to sail.", "Where do you sail?"),
        ("On the lake.", "I have never eaten one. A lake, I mean."),
    ]


def test_ratings_are_of_the_response_in_one_order_of_people(chat: Dialogue) -> None:
    # c, who judged the opening, is the first; nobody's judgement of the opening is of a turn.
    assert [turn.annotation.ratings for turn in chat.turns if turn.annotation] == [[1, 1, 0.5], [0.25, 0]]


def test_a_breakdown_is_no_failure_point(chat: Dialogue) -> None:
    assert [turn.annotation.failure_point for turn in chat.turns if turn.annotation] == [None, None]
    assert chat.annotation is None


def test_a_response_that_nobody_judged_has_no_ratings(dialogues: Dialogues) -> None:
    chat = dialogues("dbdc3")[1]
    assert chat.turns[0].annotation is None
    assert chat.user_id == "4711"


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"speaker": "S", "utterance": "Hello?"}], RejectReason.NO_TURNS),
        ([], RejectReason.NO_TURNS),
        ([{"speaker": "A", "utterance": "Hello?"}], RejectReason.WRONG_TYPE),
        ([{"speaker": "U", "utterance": " "}], RejectReason.MISSING_TEXT),
        (
            [{"speaker": "U", "utterance": "a", "annotations": [{"breakdown": "Y", "annotator-id": "a"}]}],
            RejectReason.WRONG_TYPE,
        ),
        ([{"speaker": "U", "utterance": "a", "annotations": [{"breakdown": "O"}]}], RejectReason.MISSING_FIELD),
    ],
)
def test_a_bad_chat_is_rejected(turns: object, reason: RejectReason) -> None:
    log_format = get_format("dbdc3")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps({"dialogue-id": "d", "turns": turns}).encode())
    assert error.value.reason == reason
