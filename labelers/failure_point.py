"""Failure point: per turn, the first component that failed for good, upstream first.

- One hazard a component: P(this one is the first to fail | the ones before it did not), so that upstream comes
  first by construction and the six probabilities sum to 1 (Singer and Willett 1993 for discrete-time hazards;
  the ordering of components as in failure point isolation, NAACL 2022 industry track).
- P(correct) is what is left when no component failed.
- Two experts, averaged: one reads the dialogue with its words, the other no words at all (`labelers.evidence`).
- A turn of which the log has but the words and what they were understood as is also asked how likely that is what was
  meant (`labelers.understanding`): it weighs as much as both experts. Where there is more to go by, it gains nothing.
- A component that took no part cannot fail: a request without ASR hypotheses was typed (`schemas.log`), so neither
  waking up nor speech recognition is to blame, whatever the words look like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from labelers.base import IGNORE, Encoded, Labeler, LabelerConfig, mlp
from labelers.evidence import Evidence, Examples, Lesson, fit
from labelers.slots import SlotsLabel
from labelers.understanding import Understanding, stands_alone
from schemas.labels import Label
from schemas.log import Dialogue, FailurePoint

POINTS = tuple(FailurePoint)
"""The order of the columns: correct, then the components from upstream to downstream."""
_DOUBT = 1e-4
"""Probability that an assistant understood rightly, and that it did not, at least."""
_ABSENT = -30.0
"""The score, in logits, of a component that took no part; finite, so that a log that says otherwise can be learnt
from."""


class FailurePointLabel(NamedTuple):
    """The decision for one turn."""

    point: FailurePoint
    probabilities: dict[str, float]
    abstained: bool


class FailurePointLabeler(Labeler):
    """(N, D) → (N, 6)."""

    label = Label.FAILURE_POINT
    positive = slice(1, None)
    """the failures"""

    def __init__(self, config: LabelerConfig, understanding: Understanding) -> None:
        super().__init__()
        self._understanding = understanding
        self.hazards = mlp(config.width, config.width, len(POINTS) - 1, config.dropout)
        self.evidence = Evidence(len(POINTS))

    def logits(self, encoded: Encoded, slots: Sequence[SlotsLabel] | None = None) -> Tensor:
        """(N, 6) log-probabilities in the order of `POINTS`; `slots` are the turns' own, where they are decoded."""
        scores = self.evidence(encoded.numbers, encoded.categories).float()
        scores = scores.masked_fill(functional.pad(_absent(encoded), (1, 0)), _ABSENT)
        experts = _averaged(self._words(encoded), functional.log_softmax(scores, dim=-1))
        alone = stands_alone(encoded)
        if not bool(alone.any()):
            return experts
        understood = self._understanding(encoded, slots).clamp(_DOUBT, 1 - _DOUBT)
        # Which component failed, if one did, it does not know: that is as the experts have it.
        failed = functional.log_softmax(experts[:, 1:], dim=-1)
        judged = torch.cat([understood.log()[:, None], torch.log1p(-understood)[:, None] + failed], dim=-1)
        asked = (alone & ~understood.isnan())[:, None]
        return torch.where(asked, _averaged(experts, judged), experts)

    def _words(self, encoded: Encoded) -> Tensor:
        hazards = self.hazards(encoded.states).float()  # (N, 5): wake, asr, nlu, er, result
        hazards = hazards.masked_fill(_absent(encoded), _ABSENT)
        fails, holds = functional.logsigmoid(hazards), functional.logsigmoid(-hazards)
        survived = torch.cumsum(holds, dim=-1)  # (N, 5)
        reached = torch.cat([torch.zeros_like(survived[:, :1]), survived[:, :-1]], dim=-1)
        return torch.cat([survived[:, -1:], reached + fails], dim=-1)

    def loss(self, encoded: Encoded) -> Tensor:
        """Of the expert that reads words: the other is trained before, by `fit_evidence`."""
        targets = self.targets(encoded)
        if not bool((targets != IGNORE).any()):
            return encoded.states.sum() * 0.0
        return functional.nll_loss(self._words(encoded), targets, ignore_index=IGNORE)

    def feedback_loss(self, encoded: Encoded, targets: Tensor) -> Tensor:
        """Mean loss against (N, 6) noisy targets, of the expert that reads words; 0 where there is none.

        A row of `targets` is P(correct) and the share of each component in P(defect), or NaN where there is no target.
        The loss is the binary cross-entropy of the summed probability of all defects, and the cross-entropy of the
        components among these; where the shares are all 0, which component it is stays open.
        """
        known = ~targets[:, 0].isnan()
        if not bool(known.any()):
            return encoded.states.sum() * 0.0
        return _noisy_losses(self._words(encoded)[known], targets[known]).mean()

    def fit_evidence(self, lessons: Sequence[Lesson], seed: int, *, anew: bool) -> None:
        """Trains the expert that reads no words, from all annotated turns and noisy targets at once; without any it
        stays as it is. `anew` is for an expert that was never trained."""
        examples = Examples.of(lessons, _answers([each.dialogue for each in lessons]))
        if examples is not None:
            fit(self.evidence, examples, _evidence_loss, seed, anew=anew)

    def targets(self, encoded: Encoded) -> Tensor:
        return torch.tensor(_answers(encoded.dialogues), device=encoded.states.device)

    def decode(self, encoded: Encoded, slots: Sequence[SlotsLabel] | None = None) -> list[FailurePointLabel]:
        """One decision a turn; `slots` are those that were decoded of the turns, if they were."""
        probabilities = self.probabilities(self.logits(encoded, slots)).cpu()
        decided = self.choose(probabilities).tolist()
        threshold = float(self.threshold)
        return [
            FailurePointLabel(
                POINTS[index],
                dict(zip((str(point) for point in POINTS), row, strict=True)),
                row[index] < threshold,
            )
            for index, row in zip(decided, probabilities.tolist(), strict=True)
        ]


def _averaged(one: Tensor, other: Tensor) -> Tensor:
    """The logarithm of the mean of two probabilities, of their logarithms."""
    return torch.logaddexp(one, other) - math.log(2)


def _evidence_loss(scores: Tensor, answers: Tensor, targets: Tensor) -> Tensor:
    """Mean over N turns, of which each has an answer or, where that is `IGNORE`, a noisy target."""
    log_probabilities = functional.log_softmax(scores, dim=-1)
    noisy = answers == IGNORE
    annotated = functional.nll_loss(log_probabilities, answers, ignore_index=IGNORE, reduction="sum")
    return (annotated + _noisy_losses(log_probabilities[noisy], targets[noisy]).sum()) / len(answers)


def _noisy_losses(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """(N,) losses of (N, 6) log-probabilities against (N, 6) noisy targets, as `feedback_loss` says."""
    correct, components = log_probabilities[:, 0], log_probabilities[:, 1:]
    defect = torch.logsumexp(components, dim=-1)
    binary = targets[:, 0] * correct + (1 - targets[:, 0]) * defect
    return -binary - (targets[:, 1:] * (components - defect[:, None])).sum(dim=-1)


def _answers(dialogues: Sequence[Dialogue]) -> list[int]:
    return [
        POINTS.index(turn.annotation.failure_point) if turn.annotation and turn.annotation.failure_point else IGNORE
        for dialogue in dialogues
        for turn in dialogue.turns
    ]


def _absent(encoded: Encoded) -> Tensor:
    """(N, 5), True where the log says that a component took no part."""
    rows = []
    for dialogue in encoded.dialogues:
        for turn in dialogue.turns:
            typed = not turn.asr
            rows.append((typed and turn.wake_score is None, typed, False, False, False))
    return torch.tensor(rows, device=encoded.states.device)
