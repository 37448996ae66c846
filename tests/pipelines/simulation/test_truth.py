"""The failure point of a turn is found by running it again with one stage put right."""

from __future__ import annotations

import pytest

from pipelines.simulation import action
from pipelines.simulation.action import Fault
from pipelines.simulation.assistant import Assistant, Luck, canonical
from pipelines.simulation.truth import CLEARLY, failure_point
from pipelines.simulation.users import BACKGROUND, REQUEST, Goal, Utterance
from schemas.log import FailurePoint

FINE = Luck(fault=None, missing=frozenset(), unavailable=False, pick=0.0)
BROKEN = FINE._replace(fault=Fault(action.BROKEN, 0.0))
TIMER = Utterance(REQUEST, "set a timer for fifteen minutes", "set_timer", {"duration": "fifteen minutes"})


def _goal(utterance: Utterance) -> Goal:
    args = {slot: canonical(value) for slot, value in utterance.slots.items()}
    return Goal("g0", utterance.intent, dict(utterance.slots), {}, args, unavailable=False)


def _point(assistant: Assistant, utterance: Utterance, text: str, luck: Luck, goal: Goal | None) -> FailurePoint:
    run = assistant.respond(text, CLEARLY, None, luck)
    return failure_point(assistant, utterance, goal, run, text, CLEARLY, None, luck)


@pytest.mark.parametrize(
    ("text", "luck", "expected"),
    [
        ("set a timer for fifteen minutes", FINE, FailurePoint.CORRECT),
        ("set timer for fifteen minutes", FINE, FailurePoint.CORRECT),
        ("set a timer for fifty minutes", FINE, FailurePoint.ASR),
        ("set a timer for fifteen minutes", BROKEN, FailurePoint.RESULT),
        ("set a timer for fifty minutes", BROKEN, FailurePoint.ASR),
    ],
)
def test_a_timer(assistant: Assistant, text: str, luck: Luck, expected: FailurePoint) -> None:
    assert _point(assistant, TIMER, text, luck, _goal(TIMER)) is expected


def test_words_that_were_heard_rightly_and_not_understood(assistant: Assistant) -> None:
    text = "count down fifteen minutes my hands are full"
    utterance = Utterance(REQUEST, text, "set_timer", {"duration": "fifteen minutes"})
    assert _point(assistant, utterance, text, FINE, _goal(utterance)) is FailurePoint.NLU


def test_the_less_popular_namesake(assistant: Assistant) -> None:
    lamps = sorted(
        (each for each in assistant.world.entities["device"] if each.short == "heater"), key=lambda x: x.weight
    )
    utterance = Utterance(REQUEST, "turn on the heater", "light_on", {"device": "heater"})
    for meant, expected in ((lamps[0], FailurePoint.ER), (lamps[-1], FailurePoint.CORRECT)):
        goal = Goal("g0", "light_on", {"device": "heater"}, {"device": meant}, {"device": meant.entity_id}, False)
        assert _point(assistant, utterance, utterance.text, FINE, goal) is expected


def test_a_misheard_name_is_found_by_its_sound(assistant: Assistant) -> None:
    meant = next(each for each in assistant.world.entities["artist"] if each.short == "marcus stone")
    utterance = Utterance(REQUEST, "play songs by marcus stone", "play_music", {"artist": "marcus stone"})
    goal = Goal("g0", "play_music", {"artist": meant.short}, {"artist": meant}, {"artist": meant.entity_id}, False)
    assert _point(assistant, utterance, "play songs by markets stone", FINE, goal) is FailurePoint.CORRECT


def test_acting_on_what_nobody_asked(assistant: Assistant) -> None:
    utterance = Utterance(BACKGROUND, "call mom", "none", source="television")
    assert _point(assistant, utterance, utterance.text, FINE, None) is FailurePoint.WAKE


def test_an_honest_refusal_is_correct(assistant: Assistant) -> None:
    utterance = Utterance(REQUEST, "order a pizza", "unsupported")
    assert _point(assistant, utterance, utterance.text, FINE, _goal(utterance)) is FailurePoint.CORRECT
