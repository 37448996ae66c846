"""How likely the assistant understood a turn as it was meant, by the model's own intents and slots.

The model chooses intents and slots with the assistant's own ones in sight, and still takes others where it is sure of
them. Where the two differ, one is wrong: a committee's disagreement foretells errors (Freund et al. 1997, *Selective
sampling using the query by committee algorithm*).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labelers.base import Encoded
from labelers.intent import IntentLabeler
from labelers.slots import SlotLabeler, SlotsLabel
from schemas.log import Turn


class Understanding:
    """Asks the two labelers, which are another's modules: it has no weights of its own."""

    def __init__(self, intent: IntentLabeler, slots: SlotLabeler) -> None:
        self._intent = intent
        self._slots = slots

    def __call__(self, encoded: Encoded, found: Sequence[SlotsLabel] | None = None) -> Tensor:
        """(N,) probability that a turn's first NLU hypothesis has the intent and the slots that were meant, and no
        others; NaN where there is no hypothesis, or its intent is none of those that can be meant.

        `found` are the turns' slots as the model has them; without them they are decoded here.
        """
        if found is None:
            found = self._slots.decode(encoded, self._intent.decode(encoded))
        return self._intent.of_hypothesis(encoded) * self._slots.of_hypothesis(encoded, found)


def stands_alone(encoded: Encoded) -> Tensor:
    """(N,) whether the log has nothing of a turn but its words and what they were understood as: no other turn, no
    response, no entity, no other hypothesis, no score."""
    alone = [
        len(dialogue.turns) == 1 and dialogue.feedback is None and _is_bare(turn)
        for dialogue in encoded.dialogues
        for turn in dialogue.turns
    ]
    return torch.tensor(alone, device=encoded.states.device)


def _is_bare(turn: Turn) -> bool:
    witnesses = (turn.response, turn.barge_in, turn.feedback, turn.wake_score)
    hypotheses = (turn.asr, turn.nlu)
    return (
        not turn.entities
        and all(each is None for each in witnesses)
        and all(len(some) <= 1 and all(each.score is None for each in some) for some in hypotheses)
    )
