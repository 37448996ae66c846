"""The turn encoder: one vector a turn, from its words and its features.

- Words: any RoBERTa of transformers (Liu et al. 2019, arXiv:1907.11692), fed with the turn's fields as one
  sequence; a segment embedding (zero at first) is added to the word embeddings, so any checkpoint fits.
- Numbers: piecewise linear encoding over the quantiles of the training logs (Gorishniy, Rubachev and Babenko
  2022, arXiv:2203.05556): needs no scaling, keeps outliers harmless; one extra input says *missing*.
- Categories: hashed, one embedding each; id 0 is *missing*.
- The vector is a projection of `<s>`, the mean over the user's tokens, the mean over the response's tokens, and
  the features.

Dimensions: N turns, L tokens, E token width, D turn width, F numbers, C categories, Q bins.
In masks True means: a real token or turn, not padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaModel

from encoders.features import CATEGORIES, CATEGORY_BUCKETS, NUMBERS
from encoders.text import Segment


@dataclass(frozen=True)
class TurnEncoderConfig:
    """Sizes of the turn encoder, in units (elements, bins)."""

    roberta: dict[str, Any]
    """RobertaConfig as a dictionary"""
    width: int = 256
    """D"""
    number_bins: int = 12
    """Q"""
    category_width: int = 16
    dropout: float = 0.2
    word_dropout: float = 0.1
    """share of the words that are hidden in training (Iyyer et al. 2015, *Deep unordered composition*)"""

    def __post_init__(self) -> None:
        if self.width < 1 or self.number_bins < 2 or self.category_width < 1:
            raise ValueError("width and category_width must be at least 1, number_bins at least 2")
        if not 0 <= self.dropout < 1 or not 0 <= self.word_dropout < 1:
            raise ValueError(f"dropout and word_dropout must be in [0, 1), not {self.dropout} and {self.word_dropout}")


class EncodedTurns(NamedTuple):
    """N turns."""

    vectors: Tensor
    """(N, D)"""
    tokens: Tensor
    """(N, L, E), the words' states"""


class PiecewiseLinear(nn.Module):
    """(N, F) numbers, NaN where missing → (N, F (Q + 1)): how far each bin is filled, and whether it is missing."""

    edges: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("edges", torch.linspace(0, 1, bins + 1).repeat(len(NUMBERS), 1))
        self.width = len(NUMBERS) * (bins + 1)

    def fit(self, numbers: npt.NDArray[np.float32]) -> None:
        """Sets the bins to the quantiles of `numbers`, (N, F) with NaN where missing."""
        count = self.edges.shape[1]
        for index in range(numbers.shape[1]):
            seen = numbers[:, index][~np.isnan(numbers[:, index])]
            if len(seen):
                quantiles = np.unique(np.quantile(seen.astype(np.float64), np.linspace(0, 1, count)))
                # Fewer distinct values than bins: the last edge is repeated, which makes empty bins.
                padded = np.pad(quantiles, (0, count - len(quantiles)), mode="edge")
                self.edges[index] = torch.from_numpy(padded.astype(np.float32))

    def forward(self, numbers: Tensor) -> Tensor:
        missing = torch.isnan(numbers)
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        value = torch.where(missing, low[:, 0], numbers).unsqueeze(-1)
        # An empty bin (both edges alike) is a step, so that one-valued and two-valued numbers still tell apart.
        inside = ((value - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
        inside = torch.where(missing.unsqueeze(-1), torch.zeros_like(inside), inside)
        return torch.cat([inside, missing.unsqueeze(-1).to(inside.dtype)], dim=-1).flatten(1)


class HashedCategories(nn.Module):
    """(N, C) ids → (N, C width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CATEGORIES) * CATEGORY_BUCKETS, width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.width = len(CATEGORIES) * width

    def forward(self, categories: Tensor) -> Tensor:
        offsets = torch.arange(categories.shape[1], device=categories.device) * CATEGORY_BUCKETS
        return self.embedding(categories + offsets).flatten(1)  # type: ignore[no-any-return]


class FeatureEncoder(nn.Module):
    """(N, F) numbers and (N, C) categories → (N, D)."""

    def __init__(self, config: TurnEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.numbers = PiecewiseLinear(config.number_bins)
        self.categories = HashedCategories(config.category_width)
        self.layers = nn.Sequential(
            nn.Linear(self.numbers.width + self.categories.width, width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        coded = torch.cat([self.numbers(numbers), self.categories(categories)], dim=-1)
        return self.layers(coded)  # type: ignore[no-any-return]


class TurnEncoder(nn.Module):
    """Token sequences and features → turn vectors."""

    def __init__(self, config: TurnEncoderConfig) -> None:
        super().__init__()
        roberta = RobertaConfig(**config.roberta)
        self.words = RobertaModel(roberta, add_pooling_layer=False)
        self.segments = nn.Embedding(len(Segment), roberta.hidden_size)
        nn.init.zeros_(self.segments.weight)
        self.features = FeatureEncoder(config)
        self.pooled = nn.Linear(3 * roberta.hidden_size, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.word_dropout = config.word_dropout

    def forward(self, ids: Tensor, segments: Tensor, mask: Tensor, numbers: Tensor, categories: Tensor) -> EncodedTurns:
        """ids, segments, mask: (N, L); numbers: (N, F); categories: (N, C)."""
        tokens = self.tokens(ids, segments, mask)  # (N, L, E)
        user = mask & (segments == Segment.USER)
        response = mask & (segments == Segment.RESPONSE)
        pooled = torch.cat([tokens[:, 0], _mean(tokens, user), _mean(tokens, response)], dim=-1)  # (N, 3E)
        words = self.pooled(pooled.to(self.pooled.weight.dtype))
        vectors = self.norm(words + self.features(numbers, categories))
        return EncodedTurns(self.dropout(vectors), tokens)

    def names(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """Names of an ontology as (N, E): the mean over their tokens."""
        return _mean(self.tokens(ids, segments, mask), mask)

    def tokens(self, ids: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        """(N, L) ids → (N, L, E) states."""
        words = self.words.embeddings.word_embeddings(ids)
        if self.training and self.word_dropout:
            words = words * (torch.rand(ids.shape, device=ids.device) >= self.word_dropout).unsqueeze(-1)
        embeddings = words + self.segments(segments).to(self.words.embeddings.word_embeddings.weight.dtype)
        # RoBERTa counts positions from padding_idx + 1; given embeddings it cannot see which are padding.
        pad = self.words.config.pad_token_id
        positions = torch.cumsum(mask.long(), dim=1) * mask + pad
        state = self.words(inputs_embeds=embeddings, attention_mask=mask.long(), position_ids=positions)
        return state.last_hidden_state  # type: ignore[no-any-return]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """(N, L, E) → (N, E): the mean where `mask` is True, zero where it is nowhere True."""
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1)
