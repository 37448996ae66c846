"""The dialogue encoder: a Transformer over the turns of a dialogue, past and following.

- Pre-norm Transformer encoder (Vaswani et al. 2017; Xiong et al. 2020) of PyTorch.
- Position is relative, a learned bias per head and distance (Shaw et al. 2018; Raffel et al. 2020), so a turn's
  state does not depend on where its window begins.
- A long dialogue is read in overlapping windows (`windows`); each turn is taken from the window in which it has
  the most context, so nothing is cut off.

Dimensions: B windows, T turns, D width. In masks True means: a real turn, not padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.batching import WINDOWS

WINDOW = WINDOWS[-1]
MARGIN = 16
"""Turns of context that a turn has on either side in its window, where the dialogue has them."""


@dataclass(frozen=True)
class DialogueEncoderConfig:
    """Sizes of the dialogue encoder."""

    width: int = 256
    """D"""
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.layers < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError("layers and heads must be at least 1, and heads must divide width")


class Window(NamedTuple):
    """Turns first … last - 1 are read together; those in keep_first … keep_last - 1 are taken from here."""

    first: int
    last: int
    keep_first: int
    keep_last: int


def windows(turns: int) -> Iterator[Window]:
    """The windows of a dialogue of that many turns; together they keep every turn exactly once."""
    if turns <= WINDOW:
        yield Window(0, turns, 0, turns)
        return
    step = WINDOW - 2 * MARGIN
    first = 0
    while True:
        last = min(first + WINDOW, turns)
        done = last == turns
        yield Window(first, last, first + MARGIN if first else 0, turns if done else first + MARGIN + step)
        if done:
            return
        first += step


def _gelu(values: Tensor) -> Tensor:
    # The layer's fused path, which it takes where no gradient is asked for, reads a float mask as a boolean one and
    # gives NaN (pytorch/pytorch#118628). An activation that it does not know keeps it off that path.
    return functional.gelu(values)


class DialogueEncoder(nn.Module):
    """(B, T, D) turn vectors → (B, T, D) turn states that know the dialogue."""

    def __init__(self, config: DialogueEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            config.dropout,
            activation=_gelu,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(config.width), enable_nested_tensor=False
        )
        self.distances = nn.Embedding(2 * WINDOW - 1, config.heads)
        nn.init.zeros_(self.distances.weight)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """vectors: (B, T, D); mask: (B, T)."""
        b, t, _ = vectors.shape
        steps = torch.arange(t, device=vectors.device)
        bias = self.distances(steps[None, :] - steps[:, None] + WINDOW - 1)  # (T, T, heads)
        bias = bias.permute(2, 0, 1).expand(b, self.heads, t, t)
        # A padding turn may look at everything: a row that is masked everywhere would give NaN.
        visible = mask[:, None, None, :] | ~mask[:, None, :, None]
        bias = bias.masked_fill(~visible, float("-inf")).reshape(b * self.heads, t, t)
        return self.layers(vectors, mask=bias)  # type: ignore[no-any-return]
