"""Calls on an open telephone line."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pipelines.simulation import telephone
from pipelines.simulation.assistant import Assistant
from pipelines.simulation.dialogue import Knobs, simulate
from schemas.log import Dialogue, FailurePoint, Turn, validate


def _noises(calls: list[Dialogue]) -> Iterator[tuple[Turn, FailurePoint]]:
    """The turns in which no word was said, and their failure points."""
    for call in calls:
        for turn in call.turns:
            assert turn.annotation is not None
            assert turn.annotation.failure_point is not None
            if not turn.annotation.transcript:
                yield turn, turn.annotation.failure_point


def test_a_call_is_a_valid_log_that_opens_with_a_prompt(calls: list[Dialogue]) -> None:
    for call in calls:
        validate(call)
        assert call.opening in telephone.OPENINGS


def test_nothing_in_a_call_was_woken_by_a_word(calls: list[Dialogue]) -> None:
    assert {turn.wake_score for call in calls for turn in call.turns} == {None}


def test_noise_becomes_words_that_the_assistant_acts_on(calls: list[Dialogue]) -> None:
    taken = [turn for turn, point in _noises(calls) if point is FailurePoint.WAKE]
    assert taken
    assert all(turn.text for turn in taken)
    assert any(turn.text in ("yes", "yeah", "sure", "right", "yep") for turn in taken)


def test_noise_that_nothing_comes_of_is_no_failure(calls: list[Dialogue]) -> None:
    ignored = [turn for turn, point in _noises(calls) if point is FailurePoint.CORRECT]
    assert ignored
    assert {turn.response.action for turn in ignored if turn.response} == {"again"}


def test_noise_has_the_scores_of_speech(calls: list[Dialogue]) -> None:
    def top(turn: Turn) -> float:
        return turn.asr[0].score or 0.0

    taken = [top(turn) for turn, point in _noises(calls) if point is FailurePoint.WAKE]
    said = sorted(
        top(turn)
        for call in calls
        for turn in call.turns
        if turn.annotation and turn.annotation.transcript == turn.text
    )
    assert max(taken) > said[len(said) // 2]


def test_noise_is_heard_as_what_was_asked_for(assistant: Assistant) -> None:
    answers = frozenset(("milk", "bread", "rice", "tea", "cheese", "eggs"))
    rng = random.Random(5)
    bursts = [rng.choice(list(telephone.BURSTS)) for _ in range(200)]
    expecting, not_expecting = (
        sum(assistant.recogniser.hear(burst, 0.5, rng, line)[0].text in answers for burst in bursts)
        for line in (answers, frozenset[str]())
    )
    assert expecting > 3 * max(not_expecting, 1)


def test_a_share_of_nothing_has_no_calls(assistant: Assistant) -> None:
    knobs = Knobs(wake=0.2, asr=0.7, nlu=0.07, er=0.3, result=0.05, telephone=0.0)
    assert not any(simulate(assistant, knobs, 0, index).opening for index in range(20))
