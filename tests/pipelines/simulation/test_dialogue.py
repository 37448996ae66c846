"""Whole simulated dialogues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from pipelines.simulation.assistant import Assistant
from pipelines.simulation.calibration import DEFAULT_RATES, TELEPHONE, calibrate, failure_rates
from pipelines.simulation.dialogue import Knobs, simulate
from pipelines.simulation.world import World
from schemas.log import Dialogue, ExplicitFeedback, FailurePoint, Turn, TurnAnnotation, validate


def _annotated(dialogues: list[Dialogue]) -> Iterator[tuple[Turn, TurnAnnotation]]:
    for dialogue in dialogues:
        for turn in dialogue.turns:
            assert turn.annotation is not None
            yield turn, turn.annotation


def test_they_are_valid_logs(dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        validate(dialogue)


def test_a_dialogue_does_not_depend_on_those_before_it(assistant: Assistant, knobs: Knobs) -> None:
    fresh = Assistant(World())
    for index in (17, 3):
        again = simulate(fresh, knobs, 0, index)
        assert msgspec.json.encode(again) == msgspec.json.encode(simulate(assistant, knobs, 0, index))


def test_another_seed_gives_other_dialogues(assistant: Assistant, knobs: Knobs) -> None:
    assert simulate(assistant, knobs, 1, 0).turns != simulate(assistant, knobs, 2, 0).turns


def test_every_failure_point_occurs(dialogues: list[Dialogue]) -> None:
    counts = Counter(annotation.failure_point for _, annotation in _annotated(dialogues))
    assert set(counts) == set(FailurePoint)
    assert counts[FailurePoint.CORRECT] > sum(counts.values()) / 2


def test_every_kind_of_feedback_occurs(dialogues: list[Dialogue]) -> None:
    turns = [turn for turn, _ in _annotated(dialogues)]
    assert {turn.feedback for turn in turns} == {None, *ExplicitFeedback}
    assert {turn.barge_in for turn in turns} == {True, False}
    assert {dialogue.feedback.success for dialogue in dialogues if dialogue.feedback} == {True, False}
    assert any(annotation.rephrase_of not in (None, -1) for _, annotation in _annotated(dialogues))


def test_goals_interleave(dialogues: list[Dialogue]) -> None:
    def returns(dialogue: Dialogue) -> bool:
        goals = [annotation.goal_id for _, annotation in _annotated([dialogue])]
        blocks = [goal for goal, before in zip(goals, [None, *goals], strict=False) if goal != before]
        return len(blocks) > len(set(blocks))

    assert any(map(returns, dialogues))


def test_misheard_requests_can_come_right(dialogues: list[Dialogue]) -> None:
    assert any(
        turn.text != annotation.transcript and annotation.failure_point is FailurePoint.CORRECT
        for turn, annotation in _annotated(dialogues)
        if annotation.intent != "none"
    )


def test_spans_are_those_of_the_values(dialogues: list[Dialogue]) -> None:
    for turn, annotation in _annotated(dialogues):
        for slot in [*(annotation.slots or []), *(slot for each in turn.nlu for slot in each.slots)]:
            if slot.start is not None:
                assert turn.text is not None
                assert turn.text[slot.start : slot.end] == slot.value


def test_time_goes_forward(dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        times = [time for turn in dialogue.turns for time in (turn.started_at, turn.ended_at) if time is not None]
        assert times == sorted(times)


@pytest.mark.slow
def test_rates_come_out_as_asked_for(assistant: Assistant) -> None:
    rates = {**DEFAULT_RATES, FailurePoint.WAKE: 0.06, FailurePoint.RESULT: 0.0}
    knobs = calibrate(assistant, rates, TELEPHONE)
    measured = failure_rates(simulate(assistant, knobs, 3, index) for index in range(1500))
    assert measured.get(FailurePoint.RESULT, 0.0) < 0.005
    for stage in (FailurePoint.WAKE, FailurePoint.ASR, FailurePoint.NLU, FailurePoint.ER):
        assert measured[stage] == pytest.approx(rates[stage], rel=0.35)
