"""Weights in fewer bytes: matrices in eight bits, or any tensor in bf16, where these hold its numbers exactly.

A matrix in eight bits has for each row a power of two, and for each number a whole multiple of it from -127 to 127
(block floating point, Wilkinson 1963, *Rounding Errors in Algebraic Processes*). These are bf16 numbers as well, so a
network that computes in bf16 loses nothing more by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_LARGEST = 127
_EXPONENTS = ".exponents"
"""What is added to a matrix's name for that of its exponents, (rows, 1)."""


def in_eight_bits(matrix: Tensor) -> Tensor:
    """(rows, columns) → the nearest numbers that eight bits hold, in the same type."""
    multiples, exponents = _split(matrix)
    return torch.ldexp(multiples, exponents).to(matrix.dtype)


def stored(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The same numbers in as few bytes as hold them exactly, by the names that they are stored under."""
    if tensor.dtype in (torch.float32, torch.bfloat16):
        if tensor.dim() == 2:
            multiples, exponents = _split(tensor)
            if torch.equal(torch.ldexp(multiples, exponents), tensor.float()):
                return {name: multiples.to(torch.int8), name + _EXPONENTS: exponents.to(torch.int8)}
        half = tensor.to(torch.bfloat16)
        if torch.equal(half.to(tensor.dtype), tensor):
            tensor = half
    return {name: tensor.contiguous()}


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose `stored` these are. Raises `KeyError` where one has exponents and nothing else."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(_EXPONENTS)}
    for name, exponents in tensors.items():
        if name.endswith(_EXPONENTS):
            of = name.removesuffix(_EXPONENTS)
            weights[of] = torch.ldexp(weights[of].float(), exponents.int())
    return weights


def _split(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Whole multiples, as floats, and (rows, 1) exponents: the least that hold each row."""
    largest = matrix.float().abs().amax(dim=1, keepdim=True)
    exponents = torch.ceil(torch.log2(largest / _LARGEST)).clamp(-126, 127).int()
    return torch.ldexp(matrix.float(), -exponents).round(), exponents
