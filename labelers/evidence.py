"""What the features of a turn alone say of its failure point: a second opinion, of no words.

- Scores, times, overlaps and categories (`encoders.features`), coded as in `encoders.turn`, go through a small
  perceptron. It is trained by itself, over many passes: on a few thousand annotated turns it keeps improving long
  after an encoder of words has begun to memorise them, and it finds rare failure points that words drown.
- Turns with a noisy target are drawn less often than annotated ones, by their weight: a perceptron that sees more of
  them forgets what the annotated ones taught it.
- Its probabilities and those from the words are averaged (a linear opinion pool, Stone 1961): the errors of the
  two are not of one kind.

Dimensions: N turns, F numbers, C categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from encoders.features import turn_features
from encoders.turn import HashedCategories, PiecewiseLinear
from labelers.base import IGNORE, mlp
from schemas.log import Dialogue

_BINS = 12
_CATEGORY_WIDTH = 16
_WIDTH = 128
_DROPOUT = 0.3

_PASSES = 3
"""Passes for each pass of the rest of the training."""
_MOST_UPDATES = 20_000
_BATCH = 128
"""Turns of an update."""
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.05


class Evidence(nn.Module):
    """(N, F) numbers and (N, C) categories → (N, answers) scores."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.numbers = PiecewiseLinear(_BINS)
        self.categories = HashedCategories(_CATEGORY_WIDTH)
        self.layers = nn.Sequential(
            mlp(self.numbers.width + self.categories.width, _WIDTH, _WIDTH, _DROPOUT),
            nn.LayerNorm(_WIDTH),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_WIDTH, answers),
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        coded = torch.cat([self.numbers(numbers), self.categories(categories)], dim=-1)
        return self.layers(coded)  # type: ignore[no-any-return]


class Lesson(NamedTuple):
    """What is to be learned from one validated dialogue of T turns."""

    dialogue: Dialogue
    passes: float
    """how often it is seen in training"""
    targets: npt.NDArray[np.float64]
    """(T, answers) noisy targets of turns that nobody annotated, rows of NaN where there is none"""
    weight: float
    """of a turn with a noisy target, beside 1 of an annotated one"""


class Examples(NamedTuple):
    """N turns to learn from."""

    numbers: Tensor
    """(N, F), NaN where missing"""
    categories: Tensor
    """(N, C), 0 where missing"""
    answers: Tensor
    """(N,) annotated answers, `IGNORE` where there is only a noisy target"""
    targets: Tensor
    """(N, answers) noisy targets; of no meaning where there is an answer"""
    passes: Tensor
    """(N,) how often each is seen in training"""

    @classmethod
    def of(cls, lessons: Sequence[Lesson], answers: Sequence[int]) -> Examples | None:
        """The turns with an answer or a noisy target; None where there is none. One answer a turn, or `IGNORE`."""
        given = torch.tensor(answers)
        targets = torch.from_numpy(np.concatenate([each.targets for each in lessons])).float()
        annotated = given != IGNORE
        known = annotated | ~targets[:, 0].isnan()
        if not known.any():
            return None
        features = [turn_features(each.dialogue) for each in lessons]
        lengths = [len(each.dialogue.turns) for each in lessons]
        passes = torch.tensor(np.repeat([each.passes for each in lessons], lengths))
        # Where nothing is annotated, there is nothing that the noisy targets could weigh less than.
        if annotated.any():
            weights = torch.tensor(np.repeat([each.weight for each in lessons], lengths))
            passes = torch.where(annotated, passes, passes * weights)
        return cls(
            torch.from_numpy(np.concatenate([each.numbers for each in features]))[known],
            torch.from_numpy(np.concatenate([each.categories for each in features]))[known],
            given[known],
            targets[known],
            passes[known],
        )


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(N, answers) scores, (N,) answers, (N, answers) noisy targets → one number."""


def fit(evidence: Evidence, examples: Examples, loss: Loss, seed: int, *, anew: bool) -> None:
    """Trains `evidence` to its end, and freezes it; `anew` sets the bins, too, else it goes on from what it is.

    AdamW, one cycle of the learning rate (Smith and Topin 2019), float32. The same examples and seed give the same
    weights.
    """
    torch.manual_seed(seed)
    updates = min(math.ceil(_PASSES * float(examples.passes.sum()) / _BATCH), _MOST_UPDATES)
    drawn = torch.multinomial(examples.passes, updates * _BATCH, replacement=True)
    if anew:
        evidence.numbers.fit(examples.numbers[drawn].numpy())
    optimizer = torch.optim.AdamW(evidence.parameters(), weight_decay=_WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=updates)
    evidence.train()
    for batch in drawn.split(_BATCH):  # type: ignore[no-untyped-call]
        scores = evidence(examples.numbers[batch], examples.categories[batch])
        optimizer.zero_grad(set_to_none=True)
        loss(scores, examples.answers[batch], examples.targets[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    # A gradient that is left would count where the rest of the model is trained.
    optimizer.zero_grad(set_to_none=True)
    evidence.eval().requires_grad_(False)
