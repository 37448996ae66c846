"""What users let the assistant know."""

from __future__ import annotations

import pytest

from labelers.feedback import signals
from schemas.labels import Signal
from schemas.log import Dialogue, DialogueFeedback, ExplicitFeedback, FailurePoint, Turn


def _signals(
    dialogue: Dialogue, index: int, point: FailurePoint = FailurePoint.CORRECT, rephrase_of: int | None = None
) -> list[Signal]:
    return signals(dialogue, index, rephrase_of=rephrase_of, failure_points=[point] * len(dialogue.turns))


def _said(*texts: str, feedback: DialogueFeedback | None = None) -> Dialogue:
    return Dialogue(dialogue_id="a", turns=[Turn(text=text) for text in texts], feedback=feedback)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("thank you", []),
        ("no the other one", [Signal.CORRECTION]),
        ("that's not what I asked", [Signal.CORRECTION]),
        ("that\u2019s not what I asked", [Signal.CORRECTION]),
        ("I didn\u2019t say abba", [Signal.CORRECTION]),
        ("I said adele", [Signal.CORRECTION]),
        ("northern lights", []),
        ("play adele", [Signal.REPEAT]),
        ("Play Adele", [Signal.REPEAT]),
        ("play abba", []),
    ],
)
def test_words_that_follow_a_request(text: str, wanted: list[Signal]) -> None:
    assert _signals(_said("play adele", text, "and more"), 1) == wanted


def test_a_first_turn_corrects_and_repeats_nothing() -> None:
    assert _signals(_said("no", "no"), 0) == []


def test_empty_requests_repeat_nothing() -> None:
    assert _signals(_said("", "", ""), 1) == []


def test_barge_in_and_buttons_stand_at_their_own_turn() -> None:
    dialogue = _said("play adele", "louder", "bye")
    dialogue.turns[0].barge_in = True
    dialogue.turns[1].feedback = ExplicitFeedback.NEGATIVE
    dialogue.turns[2].feedback = ExplicitFeedback.POSITIVE
    assert [_signals(dialogue, index) for index in range(3)] == [
        [Signal.BARGE_IN],
        [Signal.NEGATIVE],
        [Signal.POSITIVE],
    ]


def test_the_survey_stands_at_the_last_turn() -> None:
    dialogue = _said("play adele", "bye", feedback=DialogueFeedback(success=False))
    assert [_signals(dialogue, index) for index in range(2)] == [[], [Signal.SURVEY_FAILURE]]


def test_who_leaves_with_words_or_after_a_failure_gives_up() -> None:
    assert _signals(_said("play adele", "never mind"), 1) == [Signal.GIVE_UP]
    assert _signals(_said("play adele", "louder"), 1, FailurePoint.ASR) == [Signal.GIVE_UP]
    assert _signals(_said("play adele", "louder", "bye"), 1, FailurePoint.ASR) == []


def test_a_rephrase_is_what_the_model_says() -> None:
    assert _signals(_said("play adele", "put on adele", "bye"), 1, rephrase_of=0) == [Signal.REPHRASE]
