"""Scores between a turn and the turns before it: what goal segmentation and rephrase share.

Mention ranking (Lee et al. 2017, arXiv:1707.07045): a turn chooses one of its K predecessors, or none of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labelers.base import TURNS, Encoded, mlp


class PairScorer(nn.Module):
    """(N, D) → (N, K + 1): column 0 is *none*, column k the turn k before."""

    def __init__(self, width: int, back: int, dropout: float) -> None:
        super().__init__()
        self.back = back
        hidden = width // 2
        self.this = nn.Linear(width, hidden)
        self.that = nn.Linear(width, hidden)
        self.distance = nn.Embedding(back + 1, hidden)
        self.score = mlp(4 * hidden, hidden, 1, dropout)
        self.none = mlp(width, hidden, 1, dropout)

    def forward(self, encoded: Encoded) -> Tensor:
        states = encoded.states
        n, k = states.shape[0], self.back
        steps = torch.arange(1, k + 1, device=states.device)
        others = torch.arange(n, device=states.device)[:, None] - steps  # (N, K), flat index of the turn k before
        exists = others >= positions_of_first(encoded)[:, None]
        this, that, distance = self.this(states), self.that(states), self.distance(steps)
        parts = []
        for first in range(0, n, TURNS):
            part = slice(first, first + TURNS)
            before = that[others[part].clamp_min(0)]  # (turns of the part, K, H)
            now = this[part, None].expand_as(before)
            pairs = torch.cat([now, before, now * before, distance.expand_as(before)], dim=-1)
            parts.append(self.score(pairs).squeeze(-1))
        scores = torch.cat(parts)  # (N, K)
        scores = scores.masked_fill(~exists, torch.finfo(scores.dtype).min / 2)
        return torch.cat([self.none(states), scores], dim=-1)


def positions_of_first(encoded: Encoded) -> Tensor:
    """(N,): for each turn the flat position of its dialogue's first turn."""
    return torch.tensor(
        [first for first, dialogue in zip(encoded.first, encoded.dialogues, strict=True) for _ in dialogue.turns],
        device=encoded.states.device,
    )
