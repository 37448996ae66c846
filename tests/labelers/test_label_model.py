"""What several unreliable functions say together."""

from __future__ import annotations

import numpy as np
import pytest

from labelers.label_model import SHARES, LabelModel, supervise
from labelers.labelling_functions import FUNCTIONS, cast
from schemas.log import Dialogue, FailurePoint, Turn, TurnAnnotation

SAYS_DEFECT = np.array([True, True, True, False, False, False])
RIGHT = np.array([0.9, 0.7, 0.5, 0.97, 0.9, 0.85])
"""How often a vote is right."""


def _world(turns: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Votes of independent functions, and which turns are defects."""
    rng = np.random.default_rng(0)
    truth = rng.random(turns) < share
    votes = np.zeros((turns, len(RIGHT)), dtype=np.bool_)
    for function, (says_defect, right) in enumerate(zip(SAYS_DEFECT, RIGHT, strict=True)):
        # Votes on a quarter of the turns, of which this share is what it says.
        agrees = truth == says_defect
        rate = 0.25 * np.where(agrees, right / agrees.mean(), (1 - right) / (1 - agrees.mean()))
        votes[:, function] = rng.random(turns) < rate
    return votes, truth


def test_how_right_the_functions_are_is_learned_without_the_truth() -> None:
    votes, _ = _world(20_000, 0.25)
    model = LabelModel.fit(votes, SAYS_DEFECT)
    learned = np.where(SAYS_DEFECT, model.defects, 1 - model.defects)
    assert model.share == pytest.approx(0.25, abs=0.1)
    assert list(np.argsort(learned[:3])) == [2, 1, 0]
    assert list(np.argsort(learned[3:])) == [2, 1, 0]


def test_their_verdict_is_near_the_truth_however_long_the_log_is() -> None:
    votes, truth = _world(20_000, 0.25)
    votes, truth = (np.concatenate([each] * 20) for each in (votes, truth))
    found = LabelModel.fit(votes, SAYS_DEFECT).probabilities(votes)
    voted = votes.any(axis=1)
    assert np.square(found[voted] - truth[voted]).mean() < 0.5 * np.var(truth[voted])


def test_a_turn_without_votes_has_no_probability() -> None:
    votes = np.zeros((3, 2), dtype=np.bool_)
    votes[1, 0] = True
    found = LabelModel.fit(votes, np.array([True, False])).probabilities(votes)
    assert list(np.isnan(found)) == [True, False, True]


@pytest.mark.parametrize("turns", [0, 5])
def test_no_votes_at_all_are_no_mistake(turns: int) -> None:
    votes = np.zeros((turns, 2), dtype=np.bool_)
    assert np.isnan(LabelModel.fit(votes, np.array([True, False])).probabilities(votes)).all()


@pytest.mark.parametrize("says_defect", [True, False])
def test_votes_all_of_one_kind_leave_doubt(says_defect: bool) -> None:
    votes = np.ones((50_000, 3), dtype=np.bool_)
    model = LabelModel.fit(votes, np.full(3, says_defect))
    assert SHARES[0] <= model.share <= SHARES[1]
    assert np.isfinite(model.probabilities(votes)).all()
    assert (model.defects > 0).all() and (model.defects < 1).all()


def _dialogues(points: list[FailurePoint | None]) -> list[Dialogue]:
    return [
        Dialogue(
            dialogue_id=str(number),
            turns=[
                Turn(text="play adele", barge_in=True, annotation=TurnAnnotation(failure_point=point)),
                Turn(text="what time is it"),
            ],
        )
        for number, point in enumerate(points)
    ]


def test_the_report_counts_the_votes_and_holds_them_against_the_annotation() -> None:
    report = {
        each.function: each
        for each in supervise(_dialogues([FailurePoint.ASR, FailurePoint.CORRECT, FailurePoint.CORRECT, None])).report
    }
    spoken_over, went_on, liked = report["spoken_over"], report["went_on"], report["liked"]
    assert (spoken_over.coverage, spoken_over.overlaps, spoken_over.conflicts) == (0.5, 0.5, 0.5)
    assert spoken_over.annotated == 3
    assert spoken_over.empirical_accuracy == pytest.approx(1 / 3)
    assert went_on.empirical_accuracy == pytest.approx(2 / 3)
    assert spoken_over.learned_accuracy is not None and went_on.learned_accuracy is not None
    assert spoken_over.learned_accuracy + went_on.learned_accuracy == pytest.approx(1)
    assert (liked.coverage, liked.learned_accuracy, liked.empirical_accuracy) == (0, None, None)


def test_an_annotated_turn_has_no_noisy_target() -> None:
    feedback = supervise(_dialogues([FailurePoint.ASR, None]))
    assert [list(np.isfinite(each)) for each in feedback.targets] == [[False, False], [True, False]]
    assert feedback.turns == 1


def test_votes_are_weighed_as_other_dialogues_taught() -> None:
    taught = LabelModel(0.2, np.full(len(FUNCTIONS), 0.9))
    feedback = supervise(_dialogues([None]), taught)
    [targets] = feedback.targets
    assert feedback.model is taught
    assert targets == pytest.approx(taught.probabilities(cast(_dialogues([None]))), nan_ok=True)
    assert targets[0] > supervise(_dialogues([None])).targets[0][0]
