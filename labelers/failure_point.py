"""Failure point: per turn, the first component that failed for good, upstream first.

- One hazard a component: P(this one is the first to fail | the ones before it did not), so that upstream comes
  first by construction and the six probabilities sum to 1 (Singer and Willett 1993 for discrete-time hazards;
  the ordering of components as in failure point isolation, NAACL 2022 industry track).
- P(correct) is what is left when no component failed.
- A component that took no part cannot fail: a request without ASR hypotheses was typed (`schemas.log`), so neither
  waking up nor speech recognition is to blame, whatever the words look like.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from labelers.base import IGNORE, Encoded, Labeler, LabelerConfig, mlp
from schemas.labels import Label
from schemas.log import FailurePoint

POINTS = tuple(FailurePoint)
"""The order of the columns: correct, then the components from upstream to downstream."""
_ABSENT = -30.0
"""The hazard, in logits, of a component that took no part; finite, so that a log that says otherwise can be learnt
from."""


class FailurePointLabel(NamedTuple):
    """The decision for one turn."""

    point: FailurePoint
    probabilities: dict[str, float]
    abstained: bool


class FailurePointLabeler(Labeler):
    """(N, D) → (N, 6)."""

    label = Label.FAILURE_POINT

    def __init__(self, config: LabelerConfig) -> None:
        super().__init__()
        self.hazards = mlp(config.width, config.width, len(POINTS) - 1, config.dropout)

    def logits(self, encoded: Encoded) -> Tensor:
        """(N, 6) log-probabilities in the order of `POINTS`."""
        hazards = self.hazards(encoded.states).float()  # (N, 5): wake, asr, nlu, er, result
        hazards = hazards.masked_fill(_absent(encoded), _ABSENT)
        fails, holds = functional.logsigmoid(hazards), functional.logsigmoid(-hazards)
        survived = torch.cumsum(holds, dim=-1)  # (N, 5)
        reached = torch.cat([torch.zeros_like(survived[:, :1]), survived[:, :-1]], dim=-1)
        return torch.cat([survived[:, -1:], reached + fails], dim=-1)

    def targets(self, encoded: Encoded) -> Tensor:
        return torch.tensor(
            [
                POINTS.index(turn.annotation.failure_point)
                if turn.annotation and turn.annotation.failure_point
                else IGNORE
                for dialogue in encoded.dialogues
                for turn in dialogue.turns
            ],
            device=encoded.states.device,
        )

    def decode(self, encoded: Encoded) -> list[FailurePointLabel]:
        """One decision a turn."""
        probabilities = self.probabilities(self.logits(encoded)).cpu()
        best = probabilities.argmax(dim=-1).tolist()
        threshold = float(self.threshold)
        return [
            FailurePointLabel(
                POINTS[index],
                dict(zip((str(point) for point in POINTS), row, strict=True)),
                row[index] < threshold,
            )
            for index, row in zip(best, probabilities.tolist(), strict=True)
        ]


def _absent(encoded: Encoded) -> Tensor:
    """(N, 5), True where the log says that a component took no part."""
    rows = []
    for dialogue in encoded.dialogues:
        for turn in dialogue.turns:
            typed = not turn.asr
            rows.append((typed and turn.wake_score is None, typed, False, False, False))
    return torch.tensor(rows, device=encoded.states.device)
