"""The label model: P(defect) of turns that nobody annotated, out of the votes of the labelling functions.

- Generative, of functions that are independent given the truth (Dawid and Skene 1979; data programming, Ratner et al.
  2016, arXiv:1605.07723): a vote multiplies the odds of a defect by how much more likely it is on a defect.
- How right each function is, and how frequent defects are, is learned by expectation maximisation from where the
  functions agree and contradict each other. No annotation takes part.
- An abstention says nothing, as in Snorkel (Ratner et al. 2017, arXiv:1711.10160): of many functions that each speak
  seldom, who is silent tells the place in the dialogue rather than the truth.
- Every function is believed to be better than chance at the start, and that belief stays worth as much as all of its
  votes together, at least `BELIEF` of them. Functions are not quite independent: without it, the longer the log, the
  sooner some are taken to be always right, and those that contradict them to be always wrong.
- The share of defects stays in `SHARES`, whatever the votes.
- Deterministic: nothing is drawn.

Dimensions: N turns, J labelling functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy.special import expit, logit

from labelers.labelling_functions import FUNCTIONS, Vote, cast
from schemas.log import Dialogue, FailurePoint

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

SHARE = 0.25
"""Of the turns with a vote that are defects, at the start."""
SHARES = (0.05, 0.5)
ODDS = 4.0
"""By which a vote multiplies the odds of what it says, at the start: `defect` is then right in 57 %, `correct` in 92 %
of its votes."""
BELIEF = 300.0
"""Votes that what is believed at the start is worth at least."""
_ITERATIONS = 1_000
_CONVERGED = 1e-6


class LabelModel(NamedTuple):
    """What was learned."""

    share: float
    """of defects among the turns with a vote"""
    defects: Floats
    """(J,) P(defect | the vote of one function alone)"""

    @classmethod
    def fit(cls, votes: Booleans, says_defect: Booleans) -> LabelModel:
        """Learns from (N, J) votes of functions that say 'defect' (True, (J,)) or 'correct'."""
        voted = votes[votes.any(axis=1)].astype(np.float64)
        counts = voted.sum(axis=0)
        believed = expit(logit(SHARE) + np.where(says_defect, 1, -1) * np.log(ODDS))
        belief, belief_in_share = np.maximum(counts, BELIEF), max(len(voted), BELIEF)
        model = cls(SHARE, believed)
        for _ in range(_ITERATIONS):
            expected = model._posterior(voted)
            share = (expected.sum() + belief_in_share * SHARE) / (len(voted) + belief_in_share)
            better = cls(
                float(np.clip(share, *SHARES)),
                (expected @ voted + belief * believed) / (counts + belief),
            )
            change = max(abs(better.share - model.share), np.abs(better.defects - model.defects).max())
            model = better
            if change < _CONVERGED:
                break
        return model

    def probabilities(self, votes: Booleans) -> Floats:
        """(N, J) votes → (N,) P(defect); NaN where no function votes."""
        return np.where(votes.any(axis=1), self._posterior(votes.astype(np.float64)), np.nan)

    def _posterior(self, votes: Floats) -> Floats:
        prior = logit(self.share)
        probability: Floats = expit(prior + votes @ (logit(self.defects) - prior))
        return probability


class FunctionReport(Struct):
    """One labelling function on some logs, as Snorkel's `LFAnalysis` says it. Shares are of all turns."""

    function: str
    vote: Vote
    coverage: float
    """share of the turns that it votes on"""
    overlaps: float
    """share on which another one votes, too"""
    conflicts: float
    """share on which another one votes otherwise"""
    learned_accuracy: float | None
    """how often the label model takes its votes to be right; null: it never votes"""
    empirical_accuracy: float | None
    """how often its votes are right by the annotation; null: none of them is on an annotated turn"""
    annotated: int
    """its votes on annotated turns"""


class Supervision(NamedTuple):
    """What feedback says of the turns of some dialogues."""

    targets: list[Floats]
    """for each dialogue (turns,): P(defect); NaN where no function votes, or where the failure point is annotated"""
    report: list[FunctionReport]
    """one a function"""
    model: LabelModel
    """by which the votes were weighed"""

    @property
    def turns(self) -> int:
        """With a target."""
        return int(sum(np.isfinite(each).sum() for each in self.targets))


def supervise(dialogues: Sequence[Dialogue], model: LabelModel | None = None) -> Supervision:
    """Noisy targets for the turns of one assistant's dialogues: functions are not equally right about all of them.

    By the label model of other dialogues of this assistant, or, where none is given, by one learned from these.
    """
    votes = cast(dialogues)
    says_defect = np.array([function.vote is Vote.DEFECT for function in FUNCTIONS])
    model = model or LabelModel.fit(votes, says_defect)
    truth = _annotated_defects(dialogues)
    targets = np.where(np.isnan(truth), model.probabilities(votes), np.nan)
    ends = np.cumsum([len(dialogue.turns) for dialogue in dialogues])[:-1]
    return Supervision(np.split(targets, ends), _report(votes, says_defect, model, truth), model)


def _annotated_defects(dialogues: Sequence[Dialogue]) -> Floats:
    """(N,) 1 for a defect, 0 for a correct turn, NaN where the failure point is not annotated."""
    points = [
        turn.annotation.failure_point if turn.annotation else None for dialogue in dialogues for turn in dialogue.turns
    ]
    return np.array([np.nan if point is None else float(point != FailurePoint.CORRECT) for point in points])


def _report(votes: Booleans, says_defect: Booleans, model: LabelModel, truth: Floats) -> list[FunctionReport]:
    turns = max(len(votes), 1)
    for_defect, for_correct = votes[:, says_defect].any(axis=1), votes[:, ~says_defect].any(axis=1)
    several = votes.sum(axis=1) > 1
    posterior = model.probabilities(votes)
    report = []
    for function, mine, defect in zip(FUNCTIONS, votes.T, says_defect, strict=True):
        known = mine & ~np.isnan(truth)
        report.append(
            FunctionReport(
                function=function.name,
                vote=function.vote,
                coverage=float(mine.sum() / turns),
                overlaps=float((mine & several).sum() / turns),
                conflicts=float((mine & (for_correct if defect else for_defect)).sum() / turns),
                learned_accuracy=_right(posterior[mine], bool(defect)),
                empirical_accuracy=_right(truth[known], bool(defect)),
                annotated=int(known.sum()),
            )
        )
    return report


def _right(defects: Floats, says_defect: bool) -> float | None:
    """The share of votes that are right, where these are P(defect) of the turns voted on."""
    if not len(defects):
        return None
    return float(defects.mean() if says_defect else 1 - defects.mean())
