"""Labels against annotations: what is asked of each label, and how well it was answered.

The definitions, where more than one is in use:

- A *defect* is any failure point but `correct`; turns are ranked by `defect_probability`.
- A *goal boundary* is a turn, not a dialogue's first, whose annotated goal is another than that of the turn
  before: in sgd a new active intent, in star the turn that a `select_task` answers. `goal_boundary` asks whether
  `is_goal_start` finds it, `goal_change` whether the labelled goal changes there; the two differ where a user goes
  back to an earlier goal.
- Slots are compared as sets of a turn, as (name, value) in upper or lower case; `slot_spans` are (name, start, end)
  of those that are words of the request.
- *Act-slot-value* (Henderson, Thomson and Williams, Dialog State Tracking Challenge 2 & 3 Handbook, 2013), in the
  form that `schemas.formats.dstc2` has it: the slots, and the acts without slots, joined by `+`, as one more.
- A goal's success is read from the labelled goal with which it shares most turns.
- A turn is a *rephrase* where the log says so, or where it follows from what else is annotated
  (`labelers.rephrase`).
- *Agreement* is about turns (and dialogues) that at least two people rated, by Spearman's rank correlation. What the
  model says of one is 1 - `defect_probability` (of a dialogue: P(success)). `spearman` is with the people's mean
  rating; `spearman_with_others` leaves one of them out of that mean, each in turn, and is the mean of what comes of it.
  So what one person says can be asked the same, of all the others: that is the predictor `people`.

A function gives None where nothing of its label is annotated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from labelers.base import IGNORE
from labelers.failure_point import POINTS
from labelers.goal_segmentation import annotated_goals
from labelers.metrics import (
    Booleans,
    Estimate,
    Floats,
    Integers,
    Sample,
    Statistic,
    calibration,
    classification,
    detection,
    found,
    rank_correlation,
    roc_auc,
    shares,
)
from labelers.rephrase import annotated_rephrases
from schemas.labels import DialogueLabels, GoalLabels, SlotLabel
from schemas.log import Dialogue, DialogueAnnotation, FailurePoint, Slot, TurnAnnotation

T = TypeVar("T")
OUTCOMES = ("failure", "success")
CORRECT = POINTS.index(FailurePoint.CORRECT)
_NO_ACTS_OF_THEIR_OWN = frozenset({"inform", "request", "confirm", "deny", "none"})
"""Acts that the slots stand for, and `none`, the lack of an act."""


class Frame(NamedTuple):
    """What the user meant by a turn, as one source has it."""

    intent: str | None
    slots: Sequence[Slot | SlotLabel]


class Scored(NamedTuple):
    """The scores of one label by name, and how many annotated questions of how many dialogues they rest on."""

    estimates: dict[str, Estimate]
    questions: int
    dialogues: int


def annotated_turns(dialogues: Sequence[Dialogue]) -> Iterator[tuple[int, int, TurnAnnotation]]:
    """Of each annotated turn the number of its dialogue, its place in that, and what is annotated."""
    for number, dialogue in enumerate(dialogues):
        for index, turn in enumerate(dialogue.turns):
            if turn.annotation is not None:
                yield number, index, turn.annotation


# Failure points


class FailurePoints(NamedTuple):
    """The N turns of which the failure point is annotated."""

    dialogues: list[int]
    """(N,) each turn's dialogue, by its number"""
    indexes: list[int]
    """(N,) its place in that dialogue"""
    truth: Integers
    """(N,) position in `POINTS`"""

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue]) -> FailurePoints:
        """Of these dialogues, in order."""
        annotated = [
            (number, index, POINTS.index(annotation.failure_point))
            for number, index, annotation in annotated_turns(dialogues)
            if annotation.failure_point
        ]
        return cls(
            [number for number, _, _ in annotated],
            [index for _, index, _ in annotated],
            np.array([point for _, _, point in annotated], dtype=np.int64),
        )

    @property
    def defects(self) -> Booleans:
        """(N,)"""
        return np.not_equal(self.truth, CORRECT)

    def probabilities(self, labels: Sequence[DialogueLabels]) -> Floats:
        """(N, 6), in the order of `POINTS`, out of the labels of every dialogue."""
        turns = self.pick([labelled.turns for labelled in labels])
        return np.array([[turn.failure_point_probabilities[point] for point in POINTS] for turn in turns])

    def decided(self, labels: Sequence[DialogueLabels]) -> Integers:
        """(N,) positions in `POINTS`, out of the labels of every dialogue."""
        turns = self.pick([labelled.turns for labelled in labels])
        return np.array([POINTS.index(turn.failure_point) for turn in turns], dtype=np.int64)

    def pick(self, values: Sequence[Sequence[T]]) -> list[T]:
        """(N,) out of one value for every turn of every dialogue."""
        return [values[number][index] for number, index in zip(self.dialogues, self.indexes, strict=True)]


def score_failure_points(
    asked: FailurePoints,
    decided: Integers,
    probabilities: Floats,
    counted: Sequence[str],
    resamples: int,
    abstained: Booleans | None = None,
) -> Scored:
    """Scores of what was decided, (N,), and of the probabilities, (N, 6), both in the order of `POINTS`, with macro-F1
    over the `counted` classes.

    `abstained` (N,), if given, adds `trusted` and `trusted_accuracy`.
    """
    sample = Sample(asked.dialogues, resamples)
    right = decided == asked.truth
    statistics = [
        classification(sample, asked.truth, decided, [str(point) for point in POINTS], counted),
        calibration(sample, confidences(decided, probabilities), right),
        _defects(sample, asked.defects, decided != CORRECT, 1 - probabilities[:, CORRECT]),
    ]
    if abstained is not None:
        statistics.append(_trusted(sample, right, abstained))
    return _scored(sample, *statistics)


def confidences(decided: Integers, probabilities: Floats) -> Floats:
    """(N,) the probability, of (N, 6), of what was decided."""
    return np.take_along_axis(probabilities, decided[:, None], axis=1)[:, 0]


def score_defects(
    dialogues: Sequence[int], truth: Booleans, predicted: Booleans, score: Floats, resamples: int
) -> Scored:
    """Scores of what tells defects from the rest: the decision and the ranking; each (N,), N at least 1."""
    sample = Sample(dialogues, resamples)
    return _scored(sample, _defects(sample, truth, predicted, score))


def _defects(sample: Sample, truth: Booleans, predicted: Booleans, score: Floats) -> Statistic:
    decided, ranked = _compared(sample, truth, predicted), detection(sample, score, truth)

    def statistic(weights: Floats) -> dict[str, Floats]:
        return {f"defect_{name}": scores for name, scores in (decided(weights) | ranked(weights)).items()}

    return statistic


# Success


def annotated_success(dialogues: Sequence[Dialogue]) -> tuple[list[int], Booleans]:
    """The numbers of the dialogues of annotated success, and whether they succeeded."""
    known = [
        (number, dialogue.annotation.success)
        for number, dialogue in enumerate(dialogues)
        if dialogue.annotation and dialogue.annotation.success is not None
    ]
    return [number for number, _ in known], np.array([success for _, success in known], dtype=np.bool_)


class AnnotatedGoal(NamedTuple):
    """A goal of annotated success."""

    dialogue: int
    turns: frozenset[int]
    success: bool


def goals_of_success(dialogues: Sequence[Dialogue]) -> list[AnnotatedGoal]:
    """The goals of annotated success that some turn belongs to."""
    annotated = []
    for number, dialogue in enumerate(dialogues):
        of_turns = annotated_goals(dialogue)
        for goal in (dialogue.annotation.goals or []) if dialogue.annotation else []:
            turns = frozenset(index for index, each in enumerate(of_turns) if each == goal.goal_id)
            if goal.success is not None and turns:
                annotated.append(AnnotatedGoal(number, turns, goal.success))
    return annotated


def labelled_goal(labelled: DialogueLabels, turns: frozenset[int]) -> GoalLabels:
    """The labelled goal that shares most of these turns; of several the first."""
    return max(labelled.goals, key=lambda goal: len(turns.intersection(goal.turn_indexes)))


def success_probability(labelled: DialogueLabels | GoalLabels) -> float:
    """P(success)."""
    return labelled.success_confidence if labelled.success else 1 - labelled.success_confidence


def score_success(dialogues: Sequence[int], truth: Booleans, probability: Floats, resamples: int) -> Scored | None:
    """Scores of P(success) of dialogues or goals; each (N,)."""
    if not len(dialogues):
        return None
    sample = Sample(dialogues, resamples)
    predicted = probability >= 0.5
    return _scored(
        sample,
        classification(sample, truth.astype(np.int64), predicted.astype(np.int64), OUTCOMES, OUTCOMES),
        roc_auc(sample, probability, truth),
        calibration(sample, np.maximum(probability, 1 - probability), predicted == truth),
    )


# Goals and rephrases


def annotated_boundaries(dialogues: Sequence[Dialogue]) -> Iterator[tuple[int, int, bool]]:
    """The number of the dialogue, the place in it, and whether the goal changes, of each turn after its dialogue's
    first where that is annotated."""
    for number, dialogue in enumerate(dialogues):
        for index, goals in enumerate(pairwise(annotated_goals(dialogue)), start=1):
            if None not in goals:
                yield number, index, goals[0] != goals[1]


def asked_rephrases(dialogues: Sequence[Dialogue]) -> Iterator[tuple[int, int, int]]:
    """The number of the dialogue, the place in it, and how far back the turn is that is asked again (0: it is no
    rephrase), of each turn where that is annotated or follows."""
    for number, dialogue in enumerate(dialogues):
        for index, back in enumerate(annotated_rephrases(dialogue)):
            if back != IGNORE:
                yield number, index, back


def score_goal_boundaries(
    dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels], resamples: int
) -> dict[str, Scored | None]:
    """Of `goal_boundary` and `goal_change`."""
    places, truth, starts, changes = [], [], [], []
    for number, index, changed in annotated_boundaries(dialogues):
        before, turn = labels[number].turns[index - 1 : index + 1]
        places.append(number)
        truth.append(changed)
        starts.append(turn.is_goal_start)
        changes.append(before.goal_id != turn.goal_id)
    return {
        "goal_boundary": _score_found(places, truth, starts, resamples),
        "goal_change": _score_found(places, truth, changes, resamples),
    }


def score_rephrases(dialogues: Sequence[Dialogue], labels: Sequence[DialogueLabels], resamples: int) -> Scored | None:
    """Of whether a turn is a rephrase of an earlier one."""
    places, truth, predicted = [], [], []
    for number, index, back in asked_rephrases(dialogues):
        places.append(number)
        truth.append(back > 0)
        predicted.append(labels[number].turns[index].rephrase_of is not None)
    return _score_found(places, truth, predicted, resamples)


# Intent and slots


def _all(annotation: TurnAnnotation) -> bool:
    return True


def score_intents(
    dialogues: Sequence[Dialogue],
    frames: Sequence[Sequence[Frame]],
    resamples: int,
    abstained: Sequence[Sequence[bool]] | None = None,
    counts: Callable[[TurnAnnotation], bool] = _all,
) -> Scored | None:
    """Accuracy of one frame a turn. `abstained`, one a turn, if given, adds `trusted` and `trusted_accuracy`.

    `counts` says of an annotated turn whether it is asked about.
    """
    places, right, unsure = [], [], []
    for number, index, annotation in annotated_turns(dialogues):
        if annotation.intent is not None and counts(annotation):
            places.append(number)
            right.append(frames[number][index].intent == annotation.intent)
            unsure.append(abstained is not None and abstained[number][index])
    if not places:
        return None
    sample = Sample(places, resamples)
    statistics = [shares(sample, accuracy=(right, np.ones(len(right))))]
    if abstained is not None:
        statistics.append(_trusted(sample, np.array(right), np.array(unsure)))
    return _scored(sample, *statistics)


def exact_slots(frame: Frame) -> set[tuple[object, ...]]:
    return {(slot.name, slot.value.lower()) for slot in frame.slots}


def slot_spans(frame: Frame) -> set[tuple[object, ...]]:
    return {(slot.name, slot.start, slot.end) for slot in frame.slots if slot.start is not None}


def act_slot_values(frame: Frame) -> set[tuple[object, ...]]:
    acts = sorted(set((frame.intent or "none").split("+")) - _NO_ACTS_OF_THEIR_OWN)
    return exact_slots(frame) | ({("+".join(acts),)} if acts else set())


def score_items(
    dialogues: Sequence[Dialogue],
    frames: Sequence[Sequence[Frame]],
    items: Callable[[Frame], set[tuple[object, ...]]],
    resamples: int,
    abstained: Sequence[Sequence[bool]] | None = None,
    counts: Callable[[TurnAnnotation], bool] = _all,
) -> Scored | None:
    """Precision, recall and F1 of the items of one frame a turn, over the turns with annotated slots (micro).

    None also where the annotation has no such item at all. `abstained`, one a turn, if given, adds `trusted`, the share
    of the items in turns that are not abstained from, and `trusted_precision`, that of these. `counts` as for
    `score_intents`.
    """
    places, compared, unsure = [], [], []
    for number, index, annotation in annotated_turns(dialogues):
        if annotation.slots is not None and counts(annotation):
            truth = items(Frame(annotation.intent, annotation.slots))
            said = items(frames[number][index])
            places.append(number)
            compared.append((len(truth & said), len(said - truth), len(truth - said)))
            unsure.append(abstained is not None and abstained[number][index])
    if not any(right or missed for right, _, missed in compared):
        return None
    sample = Sample(places, resamples)
    right, wrong, missed = np.array(compared).T
    statistics = [found(sample, right, wrong, missed)]
    if abstained is not None:
        sure = ~np.array(unsure)
        kept = sure * (right + wrong)
        statistics.append(shares(sample, trusted=(kept, right + wrong), trusted_precision=(sure * right, kept)))
    return _scored(sample, *statistics)


# Agreement


class Ratings(NamedTuple):
    """The N turns, or dialogues, that at least two people rated."""

    dialogues: list[int]
    """(N,) each one's dialogue, by its number"""
    indexes: list[int]
    """(N,) the turn's place in that dialogue; 0 of a dialogue"""
    people: Floats
    """(N, P) what each of at most P people said; NaN: there were not so many"""

    @classmethod
    def of_turns(cls, dialogues: Sequence[Dialogue]) -> Ratings:
        """Of the turns of these dialogues, in order."""
        return cls._of([[turn.annotation for turn in dialogue.turns] for dialogue in dialogues])

    @classmethod
    def of_dialogues(cls, dialogues: Sequence[Dialogue]) -> Ratings:
        """Of these dialogues, in order."""
        return cls._of([[dialogue.annotation] for dialogue in dialogues])

    @classmethod
    def _of(cls, annotations: Sequence[Sequence[TurnAnnotation | DialogueAnnotation | None]]) -> Ratings:
        rated = [
            (number, index, each.ratings)
            for number, some in enumerate(annotations)
            for index, each in enumerate(some)
            if each is not None and each.ratings is not None and len(each.ratings) > 1
        ]
        people = np.full((len(rated), max((len(ratings) for _, _, ratings in rated), default=0)), np.nan)
        for row, (_, _, ratings) in zip(people, rated, strict=True):
            row[: len(ratings)] = ratings
        return cls([number for number, _, _ in rated], [index for _, index, _ in rated], people)

    def persons(self) -> Iterator[tuple[Floats, Floats]]:
        """(N,) what each person said, and (N,) the mean of what the others did; NaN where the person said nothing."""
        total, count = np.nansum(self.people, axis=1), (~np.isnan(self.people)).sum(axis=1)
        for person in self.people.T:
            yield person, (total - person) / (count - 1)


def score_agreement(rated: Ratings, values: Sequence[Sequence[float]], resamples: int) -> Scored | None:
    """Of the model with people. `values`, higher is better: one for every turn of every dialogue, or for dialogues."""
    if not rated.dialogues:
        return None
    value = np.array([values[number][index] for number, index in zip(rated.dialogues, rated.indexes, strict=True)])
    sample = Sample(rated.dialogues, resamples)
    compared = rank_correlation(
        sample,
        spearman=[(value, np.nanmean(rated.people, axis=1))],
        spearman_with_others=[(value, others) for _, others in rated.persons()],
    )
    return _scored(sample, compared)


def score_people(rated: Ratings, resamples: int) -> Scored | None:
    """Of people with each other."""
    if not rated.dialogues:
        return None
    sample = Sample(rated.dialogues, resamples)
    return _scored(sample, rank_correlation(sample, spearman_with_others=rated.persons()))


# Shared


def _scored(sample: Sample, *statistics: Statistic) -> Scored:
    return Scored(sample.estimate(*statistics), sample.questions, sample.dialogues)


def _score_found(
    dialogues: Sequence[int], truth: Sequence[bool], predicted: Sequence[bool], resamples: int
) -> Scored | None:
    if not dialogues:
        return None
    sample = Sample(dialogues, resamples)
    return _scored(sample, _compared(sample, np.array(truth), np.array(predicted)))


def _compared(sample: Sample, truth: Booleans, predicted: Booleans) -> Statistic:
    return found(sample, truth & predicted, ~truth & predicted, truth & ~predicted)


def _trusted(sample: Sample, right: Booleans, abstained: Booleans) -> Statistic:
    """`trusted`, the share of the questions that the model does not abstain from, and its accuracy on these."""
    kept = ~abstained
    return shares(sample, trusted=(kept, np.ones(len(kept))), trusted_accuracy=(kept & right, kept))
