"""Scores worked out by hand, and intervals that move as dialogues are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from labelers.metrics import (
    Sample,
    Statistic,
    calibration,
    classification,
    confusion,
    curve,
    detection,
    found,
    rank_correlation,
    reliability,
    roc_auc,
    shares,
)

NAMES = ("correct", "asr", "nlu")


def value(sample: Sample, statistic: Statistic, name: str) -> float:
    return sample.estimate(statistic)[name].value


def one_a_dialogue(questions: int, resamples: int = 10) -> Sample:
    return Sample(range(questions), resamples)


def test_classification_of_six_turns() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    scores = one_a_dialogue(6).estimate(classification(one_a_dialogue(6), truth, predicted, NAMES, NAMES))
    assert scores["accuracy"].value == pytest.approx(3 / 6)
    assert scores["precision/correct"].value == pytest.approx(2 / 4)
    assert scores["recall/correct"].value == pytest.approx(2 / 3)
    assert scores["f1/correct"].value == pytest.approx(4 / 7)
    assert scores["f1/asr"].value == pytest.approx(1 / 2)
    assert scores["f1/nlu"].value == 0
    assert math.isnan(scores["precision/nlu"].value)
    assert scores["macro_f1"].value == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)


def test_macro_f1_is_over_the_counted_classes_only() -> None:
    sample = one_a_dialogue(4)
    statistic = classification(sample, np.array([0, 1, 1, 2]), np.array([0, 1, 0, 0]), NAMES, ("correct", "asr"))
    # correct: 1 right, 2 wrong, 0 missed; asr: 1 right, 0 wrong, 1 missed.
    assert value(sample, statistic, "macro_f1") == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_a_class_that_does_not_occur_is_left_out_of_the_mean() -> None:
    sample = one_a_dialogue(2)
    assert value(sample, classification(sample, np.array([0, 1]), np.array([0, 1]), NAMES, NAMES), "macro_f1") == 1


def test_confusion_has_the_truth_in_rows() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 0]), 2).tolist() == [[1, 1], [1, 0]]


def test_found_counts_over_all_turns_together() -> None:
    sample = one_a_dialogue(2)
    scores = sample.estimate(found(sample, right=[2, 1], wrong=[0, 1], missed=[0, 2]))
    assert [scores[name].value for name in ("precision", "recall", "f1")] == pytest.approx([3 / 4, 3 / 5, 6 / 9])


def test_calibration_error_of_two_bins() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    right = np.array([True, True, True, False, True, False])
    sample = one_a_dialogue(6)
    # 4 of 6 are 0.9 sure and 0.75 right; 2 of 6 are 0.5 sure and 0.5 right.
    assert value(sample, calibration(sample, confidence, right), "calibration_error") == pytest.approx(4 / 6 * 0.15)


def test_reliability_has_the_mean_of_each_bin() -> None:
    bins = reliability(np.array([1.0, 0.95, 0.0]), np.array([True, False, False]))
    assert (bins[-1].questions, bins[-1].accuracy) == (2, 0.5)
    assert bins[-1].confidence == pytest.approx(0.975)
    assert bins[0].questions == 1
    assert bins[7].questions == 0
    assert math.isnan(bins[7].accuracy)


def test_rankings_agree_with_scikit_learn_also_in_ties() -> None:
    rng = np.random.default_rng(3)
    score, positive = rng.integers(0, 8, 200) / 8, rng.random(200) < 0.3
    sample = one_a_dialogue(200)
    assert value(sample, detection(sample, score, positive), "average_precision") == pytest.approx(
        average_precision_score(positive, score)
    )
    assert value(sample, roc_auc(sample, score, positive), "roc_auc") == pytest.approx(roc_auc_score(positive, score))


def test_coverage_is_the_most_that_the_precision_allows() -> None:
    # 20 turns of the highest score: 19 defects; then one turn that is none; then the last defect.
    score = np.array([0.9] * 20 + [0.5, 0.1])
    positive = np.array([True] * 19 + [False, False, True])
    sample = one_a_dialogue(22)
    assert value(sample, detection(sample, score, positive), "coverage_at_95") == pytest.approx(19 / 20)


def test_coverage_is_0_where_no_threshold_is_precise_enough() -> None:
    sample = one_a_dialogue(2)
    assert value(sample, detection(sample, np.array([0.9, 0.1]), np.array([False, True])), "coverage_at_95") == 0


def test_a_curve_keeps_equal_scores_together() -> None:
    kept = curve(np.array([0.5, 0.9, 0.5, 0.1]), np.array([True, True, False, True]))
    assert kept.threshold.tolist() == [0.9, 0.5, 0.1]
    assert kept.kept.tolist() == [0.25, 0.75, 1.0]
    assert kept.precision.tolist() == pytest.approx([1, 2 / 3, 3 / 4])
    assert kept.recall.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert kept.at_precision(0.7) == 2
    assert kept.at_precision(0.9) == 0


def test_a_curve_that_is_never_precise_says_so() -> None:
    assert curve(np.array([0.5, 0.1]), np.array([False, True])).at_precision(0.9) is None


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_an_auc_without_both_answers_is_undefined(positive: list[bool]) -> None:
    sample = one_a_dialogue(2)
    estimate = sample.estimate(roc_auc(sample, np.array([0.1, 0.9]), np.array(positive)))["roc_auc"]
    assert all(math.isnan(each) for each in estimate)


def test_a_rank_correlation_is_scipys_with_equal_values_too() -> None:
    one, other = np.array([3.0, 1, 2, 2, 5, 1, 4]), np.array([2.0, 1, 1, 4, 4, 4, 9])
    sample = one_a_dialogue(7)
    assert value(sample, rank_correlation(sample, rho=[(one, other)]), "rho") == pytest.approx(spearmanr(one, other)[0])


def test_a_question_drawn_twice_is_ranked_twice() -> None:
    one, other = np.array([3.0, 1, 2, 2, 5]), np.array([2.0, 1, 1, 4, 3])
    counts = np.array([2, 0, 1, 3, 1])
    (drawn,) = rank_correlation(one_a_dialogue(5), rho=[(one, other)])(counts[None].astype(float))["rho"]
    assert drawn == pytest.approx(spearmanr(np.repeat(one, counts), np.repeat(other, counts))[0])


def test_a_pair_counts_as_often_as_it_has_questions() -> None:
    values = np.array([1.0, 2, 3])
    of_all, of_two = (values, values), (values, np.array([2.0, 1, np.nan]))
    sample = one_a_dialogue(3)
    assert value(sample, rank_correlation(sample, rho=[of_all, of_two]), "rho") == pytest.approx((3 * 1 + 2 * -1) / 5)


def test_who_always_says_the_same_has_no_rank_correlation() -> None:
    values, same = np.array([0.1, 0.7, 0.3]), np.full(3, 0.1)
    sample = one_a_dialogue(3)
    scores = sample.estimate(
        rank_correlation(sample, alone=[(values, same)], beside=[(values, same), (values, values)])
    )
    assert math.isnan(scores["alone"].value)
    assert scores["beside"].value == pytest.approx(1)


def test_the_interval_is_that_of_the_binomial() -> None:
    sample = one_a_dialogue(400, resamples=1000)
    estimate = sample.estimate(shares(sample, accuracy=([1] * 200 + [0] * 200, np.ones(400))))["accuracy"]
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.006)


def test_turns_of_one_dialogue_are_drawn_together() -> None:
    # Ten dialogues of forty turns, of which all are right or all wrong: 400 turns say no more than ten.
    sample = Sample(np.repeat(np.arange(10), 40).tolist(), 1000)
    estimate = sample.estimate(shares(sample, accuracy=(np.repeat([1, 0], 200), np.ones(400))))["accuracy"]
    assert estimate.high - estimate.low > 0.5


def test_the_interval_of_a_ranking_is_of_whole_dialogues() -> None:
    # Each dialogue ranks its own defect first, so every resample is perfect.
    score, positive = np.tile([0.9, 0.1], 5), np.tile([True, False], 5)
    sample = Sample(np.repeat(np.arange(5), 2).tolist(), 200)
    assert sample.estimate(detection(sample, score, positive))["average_precision"] == (1, 1, 1)


def test_the_same_sample_gives_the_same_interval() -> None:
    def estimate() -> object:
        sample = one_a_dialogue(30, resamples=120)
        return sample.estimate(shares(sample, accuracy=([1, 0, 0] * 10, np.ones(30))))

    assert estimate() == estimate()


def test_a_sample_without_questions_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one question"):
        Sample([], 10)
