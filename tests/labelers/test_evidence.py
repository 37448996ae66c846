"""The expert that reads no words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from labelers.base import IGNORE
from labelers.evidence import Evidence, Examples, Lesson, fit
from schemas.log import AsrHypothesis, Dialogue, Turn, validate


def _lesson(dialogue: Dialogue, noisy: bool = False) -> Lesson:
    targets = np.full((len(dialogue.turns), 2), 0.5 if noisy else np.nan)
    return Lesson(dialogue, passes=10.0, targets=targets, weight=0.2)


def _loss(scores: Tensor, answers: Tensor, _: Tensor) -> Tensor:
    return functional.cross_entropy(scores, answers)


def _examples() -> Examples:
    """Turns with a score from -4 to 0 and nothing else to tell them apart: under -2 it is answer 1, else 0."""
    scores = torch.linspace(-4, 0, 400).tolist()
    dialogues = [
        validate(Dialogue(dialogue_id=str(number), turns=[Turn(asr=[AsrHypothesis(text="hi", score=score)])]))
        for number, score in enumerate(scores)
    ]
    answers = [int(score < -2) if number % 5 else IGNORE for number, score in enumerate(scores)]
    examples = Examples.of([_lesson(dialogue) for dialogue in dialogues], answers)
    assert examples is not None
    return examples


def _trained(examples: Examples, seed: int) -> Evidence:
    torch.manual_seed(0)
    evidence = Evidence(2)
    fit(evidence, examples, _loss, seed, anew=True)
    return evidence


def test_it_learns_from_a_score() -> None:
    examples = _examples()
    found = _trained(examples, 1)(examples.numbers, examples.categories).argmax(dim=-1)
    assert (found == examples.answers).float().mean() > 0.95


def test_the_same_seed_gives_the_same_weights() -> None:
    examples = _examples()
    one, same, other = (_trained(examples, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_turns_that_nobody_annotated_are_no_examples() -> None:
    examples = _examples()
    assert len(examples.answers) == 320
    assert Examples.of([_lesson(validate(Dialogue(dialogue_id="a", turns=[Turn(text="hi")])))], [IGNORE]) is None


def test_a_noisy_target_is_seen_less_often_than_an_answer_where_there_are_answers() -> None:
    dialogues = [validate(Dialogue(dialogue_id=name, turns=[Turn(text="hi")])) for name in "abc"]
    lessons = [_lesson(dialogue, noisy) for dialogue, noisy in zip(dialogues, (False, True, False), strict=True)]
    mixed, alone = (Examples.of(lessons, answers) for answers in ([1, IGNORE, IGNORE], [IGNORE] * 3))
    assert mixed is not None and alone is not None
    assert mixed.passes.tolist() == pytest.approx([10, 2])
    assert alone.passes.tolist() == [10]
