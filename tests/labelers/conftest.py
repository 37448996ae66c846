"""The tiny model as it is after training: nothing in it zero any more, and in float32 throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from labelers.base import Encoded
from labelers.model import Model
from schemas.log import Dialogue


@pytest.fixture
def model(tiny_model_dir: Path) -> Model:
    model = Model.load(tiny_model_dir).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_(model.dialogue_encoder.distances.weight)
        torch.nn.init.normal_(model.turn_encoder.segments.weight)
    return model


@pytest.fixture
def encode(model: Model) -> Callable[[Sequence[Dialogue]], Encoded]:
    """Dialogues as the labelers take them."""

    def encode(dialogues: Sequence[Dialogue]) -> Encoded:
        with torch.no_grad():
            return model.encode(dialogues, model.encode_ontology(model.ontology))

    return encode


class Fixed(torch.nn.Module):
    """A head that gives these scores, whatever it is asked."""

    def __init__(self, scores: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.weight = torch.tensor(scores)

    def forward(self, *_: object) -> torch.Tensor:
        return self.weight


@pytest.fixture
def fixed() -> type[Fixed]:
    """Makes a head of which the scores are known, to test what is decided from them."""
    return Fixed
