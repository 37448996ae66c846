"""Sequences end to end in one row of tokens, so that nothing is computed for padding but in attention.

- The linear layers, nine tenths of the arithmetic, see (M, E) tokens, M from a small ladder: few shapes for the CPU's
  kernel library to prepare, and with the small M of `TOKEN_BUDGET` what a layer leaves is still in the cache for
  the next.
- Attention pads each sequence to the next of `LENGTHS`, which follows from its own length alone.

So what comes out for a sequence is the same, bit for bit, whichever others are packed with it: it may be cached.
(Krell et al. 2021, *Efficient sequence packing without cross-contamination*, arXiv:2107.02027.)

Dimensions: S sequences, M rows of tokens, H heads, P padded length of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from encoders.batching import rung
from encoders.devices import placed

LENGTHS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)
"""Lengths that attention pads to, in tokens."""
TOKEN_BUDGET = 2_048
"""Tokens of a pack."""
SIZES = (64, 128, 256, 512, 1_024, 1_536, TOKEN_BUDGET)
"""Padded counts of a pack's tokens. All are multiples of 8: of fewer rows some kernels round otherwise."""


class Block(NamedTuple):
    """Sequences that are attended together, of one padded length."""

    padded: Tensor
    """(sequences * P,) rows of the pack; of padding the first row of its sequence"""
    mask: Tensor
    """(sequences, 1, 1, P), True where there is a token"""
    real: Tensor
    """the places in `padded` that are no padding, in the order of the pack"""


class Packing(NamedTuple):
    """Where S sequences lie in M rows: end to end, longest first, then padding."""

    size: int
    """M"""
    starts: npt.NDArray[np.int64]
    """(S,) first row of each sequence"""
    positions: Tensor
    """(M,) place of each token in its sequence, from 0; 0 in padding"""
    blocks: list[Block]

    def fill(self, sequences: Sequence[npt.NDArray[np.int64]], padding: int) -> Tensor:
        """(M,) the values of these sequences, which are those that were packed."""
        filled = np.full(self.size, padding, dtype=np.int64)
        joined = np.concatenate(sequences)
        filled[: len(joined)] = joined
        return placed(filled, self.positions.device)


def packs(lengths: Sequence[int], device: torch.device) -> Iterator[tuple[npt.NDArray[np.int64], Packing]]:
    """Packs sequences of these lengths, in tokens: (indexes of the sequences, how they lie) for each pack.

    Raises `ValueError` where one is longer than the last of `LENGTHS`, or empty.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and sizes.min() < 1:
        raise ValueError("an empty sequence cannot be packed")
    order = np.argsort(-sizes, kind="stable")
    ends = np.cumsum(sizes[order])
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, before + TOKEN_BUDGET, side="right"))
        yield order[start:end], _pack(sizes[order[start:end]], device)
        start = end


def ranges(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers from each start on, as many as its length, one range after the other."""
    before = np.cumsum(lengths) - lengths
    numbers: npt.NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return numbers


def _pack(lengths: npt.NDArray[np.int64], device: torch.device) -> Packing:
    ends = np.cumsum(lengths)
    starts = ends - lengths
    size = rung(int(ends[-1]), SIZES)
    positions = np.zeros(size, dtype=np.int64)
    positions[: ends[-1]] = ranges(np.zeros_like(lengths), lengths)
    padded = np.array([rung(int(length), LENGTHS) for length in lengths])
    blocks: list[Block] = []
    for length in sorted(set(padded.tolist()), reverse=True):
        members = padded == length
        places = np.arange(length)[None, :]
        mask = places < lengths[members, None]
        rows = starts[members, None] + places * mask
        blocks.append(
            Block(
                placed(rows.ravel(), device),
                placed(mask[:, None, None, :], device),
                placed(np.flatnonzero(mask), device),
            )
        )
    return Packing(size, starts, placed(positions, device), blocks)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Packing,
    dropout: float = 0.0,
    scaling: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it, (1, H, M, width) → (1, M, H, width); the mask is a `Packing`."""
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]
    heads, width = query.shape[1], query.shape[3]
    attended = []
    for block in attention_mask.blocks:
        # Masked also where there is no padding, as the kernel rounds otherwise.
        count, length = block.mask.shape[0], block.mask.shape[-1]
        q, k, v = (each[block.padded].view(count, length, heads, width).transpose(1, 2) for each in rows)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=block.mask, dropout_p=dropout, scale=scaling)
        attended.append(mixed.transpose(1, 2).reshape(count * length, heads, width)[block.real])
    packed = torch.cat(attended)
    padding = attention_mask.size - packed.shape[0]
    return functional.pad(packed, (0, 0, 0, 0, 0, padding))[None], None


ATTENTION = "faultline-packed"
AttentionInterface.register(ATTENTION, _attend)
