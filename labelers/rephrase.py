"""Rephrase: whether a turn asks again for what an earlier turn asked in vain, and which turn that is.

Where the log says it (`annotation.rephrase_of`) that is the truth. Where it has the annotated meaning and
failure point of the turns, the truth follows: the nearest of the last `BACK` turns that failed and meant the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from labelers.base import IGNORE, Encoded, Labeler, LabelerConfig
from labelers.pairs import PairScorer
from schemas.labels import Label
from schemas.log import Dialogue, FailurePoint, Turn, TurnAnnotation

BACK = 4
"""How many turns back a request is looked for."""


class RephraseLabel(NamedTuple):
    """The decision for one turn."""

    rephrase_of: int | None
    abstained: bool


class RephraseLabeler(Labeler):
    """(N, D) → (N, BACK + 1)."""

    label = Label.REPHRASE
    positive = slice(1, None)
    """the turns that it may ask again: first it is decided whether it is a rephrase, then of which of them"""

    def __init__(self, config: LabelerConfig) -> None:
        super().__init__()
        self.scorer = PairScorer(config.width, BACK, config.dropout)

    def logits(self, encoded: Encoded) -> Tensor:
        return self.scorer(encoded)  # type: ignore[no-any-return]

    def targets(self, encoded: Encoded) -> Tensor:
        return torch.tensor(
            [target for dialogue in encoded.dialogues for target in annotated_rephrases(dialogue)],
            device=encoded.states.device,
        )

    def decode(self, encoded: Encoded) -> list[list[RephraseLabel]]:
        """For each dialogue one decision a turn."""
        probabilities = self.probabilities(self.logits(encoded)).cpu()
        backs = self.choose(probabilities)
        abstained = probabilities.gather(1, backs[:, None])[:, 0] < float(self.threshold)
        decided = []
        for first, dialogue in zip(encoded.first, encoded.dialogues, strict=True):
            part = slice(first, first + len(dialogue.turns))
            decided.append(
                [
                    RephraseLabel(index - back if 0 < back <= index else None, unsure)
                    for index, (back, unsure) in enumerate(
                        zip(backs[part].tolist(), abstained[part].tolist(), strict=True)
                    )
                ]
            )
        return decided


def annotated_rephrases(dialogue: Dialogue) -> list[int]:
    """For each turn: 0 if it is no rephrase, how far back the turn is that it asks again, `IGNORE` if unknown."""
    targets = []
    # Whether all turns up to here have a failure point.
    known = True
    for index, turn in enumerate(dialogue.turns):
        annotation = turn.annotation
        known &= annotation is not None and annotation.failure_point is not None
        if index == 0 or annotation is None:
            targets.append(IGNORE)
        elif annotation.rephrase_of is not None:
            back = index - annotation.rephrase_of if annotation.rephrase_of >= 0 else 0
            targets.append(back if back <= BACK else IGNORE)
        else:
            targets.append(_derived(dialogue.turns, index) if known else IGNORE)
    return targets


def _derived(turns: list[Turn], index: int) -> int:
    """What follows from the annotated meanings and failure points of a turn and of all before it."""
    this = turns[index].annotation
    if this is None or this.slots is None:
        return IGNORE
    for back in range(1, min(index, BACK) + 1):
        other = turns[index - back].annotation
        if other and other.failure_point != FailurePoint.CORRECT:
            if other.slots is None:
                return IGNORE
            if _meaning(other) == _meaning(this):
                # Without slots it may be a request, such as for a joke, or no more than another `yes`.
                return back if this.slots else IGNORE
    return 0


def _meaning(annotation: TurnAnnotation) -> tuple[str, frozenset[tuple[str, str]]]:
    """Annotated intent and slots."""
    slots = annotation.slots or ()
    return annotation.intent or "", frozenset((slot.name, slot.value.lower()) for slot in slots)
