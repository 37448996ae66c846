"""The recogniser of the simulated assistant."""

from __future__ import annotations

import random

from pipelines.simulation.assistant import Assistant

TEXT = "set a timer for fifteen minutes"


def _heard(assistant: Assistant, text: str, difficulty: float, count: int = 150) -> list[str]:
    rng = random.Random(1)
    return [assistant.recogniser.hear(text, difficulty, rng)[0].text for _ in range(count)]


def test_noise_makes_errors(assistant: Assistant) -> None:
    wrong = [sum(text != TEXT for text in _heard(assistant, TEXT, difficulty)) for difficulty in (0.0, 1.5, 4.0)]
    assert wrong[0] < wrong[1] < wrong[2]


def test_errors_sound_like_what_was_said(assistant: Assistant) -> None:
    assert any("fifty" in text for text in _heard(assistant, TEXT, 3.0))


def test_a_word_that_it_does_not_know_is_never_heard(assistant: Assistant) -> None:
    assert not any("zealous" in text for text in _heard(assistant, "define zealous", 0.5))


def test_hypotheses_differ_and_come_best_first(assistant: Assistant) -> None:
    found = assistant.recogniser.hear(TEXT, 1.0, random.Random(2))
    scores = [each.score or 0.0 for each in found]
    assert len({each.text for each in found}) == len(found) > 1
    assert scores == sorted(scores, reverse=True)
    assert scores[0] <= 0.0
