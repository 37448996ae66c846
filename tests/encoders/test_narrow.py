"""Weights in fewer bytes."""

from __future__ import annotations

import pytest
import torch

from encoders.narrow import in_eight_bits, restored, stored


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20, 0.0])
def test_every_row_is_held_to_its_own_precision(scale: float) -> None:
    matrix = (
        torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 64)[:, None] * scale
    )
    held = in_eight_bits(matrix)
    assert bool(((held - matrix).abs() <= matrix.abs().amax(dim=1, keepdim=True) / 127).all())
    assert torch.equal(in_eight_bits(held), held)
    assert torch.equal(held.to(torch.bfloat16).float(), held)


def test_numbers_come_back_as_they_were_in_as_few_bytes_as_hold_them() -> None:
    matrix = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    for tensor, size in (
        (in_eight_bits(matrix), 64 * 48 + 64),
        (in_eight_bits(matrix).to(torch.bfloat16), 64 * 48 + 64),
        (matrix.to(torch.bfloat16).float(), 2 * 64 * 48),
        (matrix, 4 * 64 * 48),
        (matrix[0], 4 * 48),
        (torch.arange(5), 5 * 8),
    ):
        kept = stored("weight", tensor)
        assert sum(each.nbytes for each in kept.values()) == size
        assert torch.equal(restored(kept)["weight"].to(tensor.dtype), tensor)
