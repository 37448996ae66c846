"""The turn encoder: one vector a turn, from its words and its features.

- Words: any RoBERTa of transformers (Liu et al. 2019, arXiv:1907.11692), fed with the turn's fields as one
  sequence; a segment embedding (zero at first) is added to the word embeddings, so any checkpoint fits. Turns are
  packed end to end (`encoders.packing`).
- Numbers: piecewise linear encoding over the quantiles of the training logs (Gorishniy, Rubachev and Babenko
  2022, arXiv:2203.05556): needs no scaling, keeps outliers harmless; one extra input says *missing*.
- Categories: hashed, one embedding each; id 0 is *missing*.
- The vector is a projection of `<s>`, the mean over the user's tokens, the mean over the response's tokens, and
  the features.

Dimensions: N turns, S sequences and M rows of tokens of a pack, E token width, D turn width, F numbers,
C categories, Q bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import RobertaConfig, RobertaModel

from encoders.devices import placed
from encoders.features import CATEGORIES, CATEGORY_BUCKETS, NUMBERS
from encoders.packing import ATTENTION, Packing
from encoders.text import Segment, TokenizedTurn


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


class PackedTurns(NamedTuple):
    """Token sequences of S turns, or names, in M rows."""

    ids: Tensor
    """(M,)"""
    segments: Tensor
    """(M,), values of `Segment`"""
    packing: Packing

    @classmethod
    def of(cls, turns: Sequence[TokenizedTurn], packing: Packing, pad_id: int) -> PackedTurns:
        """These turns, in the order in which they were packed."""
        return cls(
            packing.fill([turn.ids for turn in turns], pad_id),
            # No field has this number, so that padding is in no mean.
            packing.fill([turn.segments for turn in turns], len(Segment)),
            packing,
        )


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
        roberta = RobertaConfig(**config.roberta, attn_implementation=ATTENTION)
        self.words = RobertaModel(roberta, add_pooling_layer=False)
        self.segments = nn.Embedding(len(Segment), roberta.hidden_size)
        nn.init.zeros_(self.segments.weight)
        self.features = FeatureEncoder(config)
        self.pooled = nn.Linear(3 * roberta.hidden_size, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.word_dropout = config.word_dropout

    def forward(self, words: Tensor, numbers: Tensor, categories: Tensor) -> Tensor:
        """`words`: (N, 3E), what `pool` gives; numbers: (N, F); categories: (N, C). Gives (N, D)."""
        vectors = self.norm(self.pooled(words) + self.features(numbers, categories))
        return self.dropout(vectors)  # type: ignore[no-any-return]

    def pool(self, states: Tensor, turns: PackedTurns) -> Tensor:
        """(M, E) states → (S, 3E) in float32: of `<s>`, and the means over the user's and the response's tokens."""
        first = placed(turns.packing.starts, states.device)
        fields = [self._mean(states, turns, turns.segments == each) for each in (Segment.USER, Segment.RESPONSE)]
        return torch.cat([states[first].float(), *fields], dim=-1)

    def names(self, states: Tensor, names: PackedTurns) -> Tensor:
        """(M, E) states → (S, E) in float32: the means over all tokens."""
        return self._mean(states, names, names.segments < len(Segment))

    def tokens(self, turns: PackedTurns) -> Tensor:
        """The (M, E) states of the tokens."""
        embeddings = self.words.embeddings
        words = embeddings.word_embeddings(turns.ids)
        if self.training and self.word_dropout:
            words = words * (torch.rand(turns.ids.shape, device=words.device) >= self.word_dropout).unsqueeze(-1)
        segments = functional.pad(self.segments.weight, (0, 0, 0, 1))[turns.segments]
        # RoBERTa counts positions from padding_idx + 1.
        positions = turns.packing.positions + self.words.config.pad_token_id + 1
        embedded = embeddings(inputs_embeds=(words + segments.to(words.dtype))[None], position_ids=positions[None])
        return self.words.encoder(embedded, attention_mask=turns.packing).last_hidden_state[0]  # type: ignore[no-any-return]

    def _mean(self, states: Tensor, turns: PackedTurns, of: Tensor) -> Tensor:
        """(M, E) → (S, E) in float32: each sequence's mean over the rows where `of`, (M,), is True; zero where none."""
        before = functional.pad(torch.cumsum(of, dim=0), (1, 0))
        starts = placed(turns.packing.starts, states.device)
        return functional.embedding_bag(of.nonzero()[:, 0], states.float(), before[starts], mode="mean")
