"""Vectors that are kept: the same as anew, asked for once, as many as there is room for."""

from __future__ import annotations

import torch
from torch import Tensor

from encoders.kept import KeptVectors


class Encoder:
    """Numbers as vectors; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, keys: list[int]) -> Tensor:
        self.asked.append(keys)
        return torch.tensor([[key, 10 * key] for key in keys], dtype=torch.float32).reshape(len(keys), 2)


def first(vectors: Tensor) -> list[float]:
    assert torch.equal(vectors[:, 1], vectors[:, 0] * 10)
    return vectors[:, 0].tolist()


def test_what_is_kept_is_not_encoded_again() -> None:
    encode, kept = Encoder(), KeptVectors[int](4)
    assert first(kept.look_up([3, 1, 3], encode)) == [3, 1, 3]
    assert first(kept.look_up([1, 2, 3, 2], encode)) == [1, 2, 3, 2]
    assert first(kept.look_up([2, 1], encode)) == [2, 1]
    assert encode.asked == [[3, 1], [2]]


def test_what_was_not_asked_for_the_longest_makes_room() -> None:
    encode, kept = Encoder(), KeptVectors[int](3)
    kept.look_up([1, 2, 3], encode)
    kept.look_up([1], encode)
    kept.look_up([4], encode)
    assert first(kept.look_up([1, 3, 4], encode)) == [1, 3, 4]
    assert first(kept.look_up([2], encode)) == [2]
    assert encode.asked == [[1, 2, 3], [4], [2]]


def test_there_may_be_more_than_room_for() -> None:
    encode, kept = Encoder(), KeptVectors[int](2)
    assert first(kept.look_up([1, 2, 3, 4, 5], encode)) == [1, 2, 3, 4, 5]
    assert first(kept.look_up([4, 5, 1], encode)) == [4, 5, 1]
    assert encode.asked == [[1, 2, 3, 4, 5], [1]]
    assert kept.look_up([], encode).shape == (0, 2)


def test_what_is_looked_up_is_a_copy_and_can_be_cleared() -> None:
    encode, kept = Encoder(), KeptVectors[int](2)
    for _ in range(2):
        kept.look_up([1], encode).zero_()
        assert first(kept.look_up([1], encode)) == [1]
    kept.clear()
    kept.look_up([1], encode, keep=False)
    kept.look_up([1], encode)
    assert encode.asked == [[1]] * 3


def test_it_can_be_used_in_and_out_of_inference_mode() -> None:
    encode, kept = Encoder(), KeptVectors[int](2)
    with torch.inference_mode():
        kept.look_up([1], encode)
    assert first(kept.look_up([1, 2], encode)) == [1, 2]
    with torch.inference_mode():
        assert first(kept.look_up([3, 2], encode)) == [3, 2]
