"""The turn encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.features import CATEGORIES, NUMBERS
from encoders.packing import packs
from encoders.text import Segment, TokenizedTurn
from encoders.turn import FeatureEncoder, PackedTurns, TurnEncoder
from labelers.model import Model

CATEGORY = torch.zeros(1, len(CATEGORIES), dtype=torch.long)


@pytest.fixture(scope="module")
def encoder(tiny_model_dir: Path) -> TurnEncoder:
    encoder = Model.load(tiny_model_dir).turn_encoder.float()
    torch.nn.init.normal_(encoder.segments.weight)
    return encoder


@pytest.fixture
def features(encoder: TurnEncoder) -> FeatureEncoder:
    numbers = np.full((100, len(NUMBERS)), np.nan, dtype=np.float32)
    numbers[:, 0] = np.linspace(-5, 5, 100)
    numbers[:, 1] = np.arange(100) % 2
    numbers[:, 2] = 7
    numbers[:, 3] = [1e38, -1e38] * 50
    encoder.features.numbers.fit(numbers)
    return encoder.features


def _of(features: FeatureEncoder, index: int, value: float) -> torch.Tensor:
    numbers = torch.full((1, len(NUMBERS)), torch.nan)
    numbers[0, index] = value
    with torch.inference_mode():
        return features(numbers, CATEGORY)[0]


@torch.inference_mode()
def test_a_turn_without_user_or_response_gives_a_finite_vector(encoder: TurnEncoder) -> None:
    turn = TokenizedTurn(np.array([0]), np.array([Segment.ENTITIES]), np.zeros((0, 2), np.int64), False)
    ((_, packing),) = packs([1], torch.device("cpu"))
    packed = PackedTurns.of([turn], packing, 1)
    words = encoder.pool(encoder.tokens(packed), packed)
    numbers = torch.full((1, len(NUMBERS)), torch.nan)
    assert encoder(words, numbers, CATEGORY).isfinite().all()


@pytest.mark.parametrize(("index", "one", "other"), [(0, -1.0, 1.0), (1, 0.0, 1.0), (2, 6.0, 8.0), (3, -1e38, 1e38)])
def test_values_tell_apart(features: FeatureEncoder, index: int, one: float, other: float) -> None:
    assert not torch.allclose(_of(features, index, one), _of(features, index, other))


@pytest.mark.parametrize("index", range(4))
def test_missing_is_no_value(features: FeatureEncoder, index: int) -> None:
    lowest = float(features.numbers.edges[index, 0])
    assert not torch.allclose(_of(features, index, torch.nan), _of(features, index, lowest))


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("value", [1e-40, 8e37, -8e37])
def test_any_score_gives_a_finite_vector(features: FeatureEncoder, index: int, value: float) -> None:
    assert _of(features, index, value).isfinite().all()
