"""Intent: what the user meant, chosen from the assistant's ontology.

The turn is compared with the name and description of every intent, encoded by the same words encoder, so a
model can score intents that it was not trained on (as in Rastogi et al. 2020, the SGD baseline). The choice is among
those of the services that could be reached in the dialogue.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from labelers.base import IGNORE, TURNS, Encoded, EncodedOntology, Labeler, LabelerConfig, Reachable
from schemas.labels import Label


class IntentLabel(NamedTuple):
    """The decision for one turn; no name where the ontology is empty."""

    name: str | None
    confidence: float | None
    abstained: bool


class IntentLabeler(Labeler):
    """(N, D) and (I, E) → (N, I)."""

    label = Label.INTENT

    def __init__(self, config: LabelerConfig) -> None:
        super().__init__()
        self.turn = nn.Linear(config.width, config.token_width)
        self.name = nn.Linear(config.token_width, config.token_width)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def logits(self, encoded: Encoded) -> Tensor:
        turns = functional.normalize(self.turn(encoded.states).float(), dim=-1)
        names = functional.normalize(
            self.name(encoded.ontology.intent_vectors.to(self.name.weight.dtype)).float(), dim=-1
        )
        return self.scale.exp().clamp(max=100) * turns @ names.T

    def scores(self, encoded: Encoded) -> Tensor:
        return torch.cat(list(self._scores(encoded)))

    def targets(self, encoded: Encoded) -> Tensor:
        index = {name: position for position, name in enumerate(encoded.ontology.intents)}
        return torch.tensor(
            [
                index.get(turn.annotation.intent or "", IGNORE) if turn.annotation else IGNORE
                for dialogue in encoded.dialogues
                for turn in dialogue.turns
            ],
            device=encoded.states.device,
        )

    def decode(self, encoded: Encoded) -> list[IntentLabel]:
        """One decision a turn."""
        names = encoded.ontology.intents
        if not names:
            return [IntentLabel(None, None, True)] * encoded.states.shape[0]
        threshold = float(self.threshold)
        decided = [self.probabilities(some).max(dim=-1) for some in self._scores(encoded)]
        return [
            IntentLabel(names[index], sure, sure < threshold)
            for confidence, best in decided
            for index, sure in zip(best.tolist(), confidence.tolist(), strict=True)
        ]

    def of_hypothesis(self, encoded: Encoded) -> Tensor:
        """(N,) probability of the intent of a turn's first NLU hypothesis: 1 where that has none, NaN where there is no
        hypothesis, or its intent is out of reach or not in the ontology."""
        rows = {name: row for row, name in enumerate(encoded.ontology.intents)}
        turns = encoded.turns
        intents = [turn.nlu[0].intent if turn.nlu else None for turn in turns]
        given = torch.tensor(
            [1.0 if turn.nlu and intent is None else math.nan for turn, intent in zip(turns, intents, strict=True)],
            device=encoded.states.device,
        )
        if not rows:
            return given
        named = torch.tensor(
            [
                rows[intent] if intent in reach.intents else -1
                for intent, reach in zip(intents, encoded.reachable, strict=True)
            ],
            device=given.device,
        )
        chosen = [
            self.probabilities(some).gather(1, named[part * TURNS : (part + 1) * TURNS, None].clamp_min(0))[:, 0]
            for part, some in enumerate(self._scores(encoded))
        ]
        return torch.where(named >= 0, torch.cat(chosen), given)

    def _scores(self, encoded: Encoded) -> Iterator[Tensor]:
        """(turns, I) `scores`, `TURNS` turns at a time."""
        reachable = encoded.reachable
        for first in range(0, len(reachable), TURNS):
            logits = self.logits(encoded._replace(states=encoded.states[first : first + TURNS]))
            out = _out_of_reach(encoded.ontology, reachable[first : first + TURNS])
            yield logits if out is None else logits.masked_fill(out.to(logits.device), float("-inf"))


def _out_of_reach(ontology: EncodedOntology, reachable: Sequence[Reachable]) -> Tensor | None:
    """(turns, I), True where an intent cannot be meant; None where all can."""
    if all(each is ontology.everything for each in reachable):
        return None
    distinct = {id(each): each for each in reachable}
    rows = {key: row for row, key in enumerate(distinct)}
    out = [[name not in each.intents for name in ontology.intents] for each in distinct.values()]
    return torch.tensor(out, dtype=torch.bool)[torch.tensor([rows[id(each)] for each in reachable])]
