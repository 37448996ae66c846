"""What users do, and how each labelling function takes it."""

from __future__ import annotations

import pytest

from labelers.labelling_functions import FUNCTIONS, cast
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    DialogueFeedback,
    ExplicitFeedback,
    FailurePoint,
    NluHypothesis,
    Response,
    Slot,
    Turn,
    TurnAnnotation,
)

ASKED = Turn(
    text="play some adele",
    nlu=[NluHypothesis(intent="play", slots=[Slot(name="artist", value="adele")])],
    response=Response(text="Do you mean Adele?"),
)


def _voters(index: int, *turns: Turn | str, feedback: DialogueFeedback | None = None) -> set[str]:
    dialogue = Dialogue(
        dialogue_id="a",
        turns=[Turn(text=turn) if isinstance(turn, str) else turn for turn in turns],
        feedback=feedback,
    )
    row = cast([dialogue])[index]
    return {function.name for function, votes in zip(FUNCTIONS, row, strict=True) if votes}


@pytest.mark.parametrize(
    ("following", "voters"),
    [
        ("play some adele", {"repeated"}),
        ("Play some ADELE", {"repeated"}),
        ("please play some songs by adele", {"rephrased"}),
        ("no the other one", {"corrected", "went_on"}),
        ("never mind", {"gave_up", "went_on"}),
        ("thanks goodbye", {"thanked", "went_on"}),
        ("how is the weather", {"went_on"}),
        ("play some abba", set()),
        ("", set()),
    ],
)
def test_the_next_request_tells_of_the_one_before(following: str, voters: set[str]) -> None:
    assert _voters(0, "play some adele", following, "what time is it") == voters


def test_what_is_asked_again_later_failed() -> None:
    assert _voters(0, "play some adele", "what time is it", "play adele") == {"went_on", "asked_later"}
    assert _voters(0, "play some adele", "please play some adele", "play adele") == {"rephrased"}


def test_a_value_that_the_response_has_was_right_if_the_user_goes_on_and_surely_if_they_say_yes() -> None:
    assert _voters(0, ASKED, "what time is it") == {"accepted", "went_on"}
    assert _voters(0, ASKED, "yes please") == {"accepted", "went_on", "confirmed"}
    assert _voters(0, ASKED, "play some adele") == {"repeated"}


def test_a_thank_you_that_asks_for_something_thanks_for_nothing() -> None:
    assert "thanked" not in _voters(0, "what time is it", "no thank you")
    assert "thanked" not in _voters(
        0, "what time is it", Turn(text="play adele thanks", nlu=[NluHypothesis(slots=ASKED.nlu[0].slots)])
    )


def test_a_turn_tells_of_itself() -> None:
    assert _voters(0, Turn(text="hi", barge_in=True)) == {"spoken_over"}
    assert _voters(0, Turn(text="hi", barge_in=False)) == set()
    assert _voters(0, Turn(text="hi", feedback=ExplicitFeedback.NEGATIVE)) == {"disliked"}
    assert _voters(0, Turn(text="hi", feedback=ExplicitFeedback.POSITIVE)) == {"liked"}
    assert _voters(0, Turn(text="hi", response=Response(status="failure"))) == {"not_done"}
    assert _voters(0, Turn(text="hi", response=Response(status="unsupported"))) == set()


def test_an_assistant_that_says_the_same_again_got_nowhere() -> None:
    said, again = (Turn(text=text, response=Response(text="Which one?")) for text in ("play it", "adele"))
    assert "no_progress" in _voters(1, said, again)
    assert "no_progress" not in _voters(0, said, again)


@pytest.mark.parametrize(
    ("feedback", "voters"),
    [
        (DialogueFeedback(success=True), [set(), {"happy_end"}, {"happy_end"}]),
        (DialogueFeedback(success=False), [{"unhappy_end"}, {"unhappy_end"}, set()]),
        (DialogueFeedback(rating=1.0), [set(), {"happy_end"}, {"happy_end"}]),
        (DialogueFeedback(rating=0.0), [{"unhappy_end"}, {"unhappy_end"}, set()]),
        (DialogueFeedback(rating=0.5), [set(), set(), set()]),
        (DialogueFeedback(success=False, rating=1.0), [{"unhappy_end"}, {"unhappy_end"}, set()]),
    ],
)
def test_a_survey_tells_of_the_end_or_of_all_but_the_last(feedback: DialogueFeedback, voters: list[set[str]]) -> None:
    turns = ("play some adele", "", "")
    assert [_voters(index, *turns, feedback=feedback) for index in range(3)] == voters


def test_annotations_take_no_part() -> None:
    turns = [ASKED, Turn(text="play adele"), Turn(text="thank you")]
    bare = Dialogue(dialogue_id="a", turns=turns)
    known = Dialogue(
        dialogue_id="a",
        turns=[
            Turn(
                text=turn.text,
                nlu=turn.nlu,
                response=turn.response,
                annotation=TurnAnnotation(transcript="stop", failure_point=FailurePoint.ASR, rephrase_of=-1),
            )
            for turn in turns
        ],
        annotation=DialogueAnnotation(success=False),
    )
    assert (cast([bare]) == cast([known])).all()
    assert cast([bare]).any()
