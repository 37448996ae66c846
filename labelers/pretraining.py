"""What both encoders can learn from dialogues that nobody annotated.

- *Masked*: the words encoder fills in masked word pieces, other ones each time (dynamic masking, no next-sentence
  task; Liu et al. 2019, arXiv:1907.11692; of the chosen pieces 80 % are masked, 10 % replaced, 10 % left, as in Devlin
  et al. 2019).
- *Swapped*: both encoders tell the responses that belong where they stand from those that were swapped in, from
  another dialogue of the same assistant or, harder, from another turn of the same dialogue.
- *Garbled*: both encoders tell requests as they were said from those with words that only sound like what was said.

The heads are dropped afterwards: what is left is a model with an empty ontology, which knows no label.

Dimensions: N turns, L tokens of a turn, S sequences and M rows of tokens of a pack, E token width, D turn width.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.devices import placed
from encoders.features import turn_features
from encoders.packing import packs
from encoders.text import TokenizedTurn
from encoders.turn import PackedTurns
from labelers.base import IGNORE, mlp
from labelers.learning import Learner, LearningConfig, Source, Step
from labelers.model import Model
from schemas.log import Dialogue, Response, Turn

Garble = Callable[[str, random.Random], str]
"""What a recogniser might make of a request."""


@dataclass(frozen=True)
class PretrainingConfig(LearningConfig):
    """How to learn, and from what."""

    masked: float = 0.15
    """share of the word pieces"""
    swapped: float = 0.2
    """share of the responses"""
    garbled: float = 0.3
    """share of the requests"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < share < 1 for share in (self.masked, self.swapped, self.garbled)):
            raise ValueError("masked, swapped and garbled must be between 0 and 1")


class Disturbed(NamedTuple):
    """A dialogue of N turns in which some things are not as they were."""

    dialogue: Dialogue
    swapped: list[int]
    """(N,) whether the response is another's; `IGNORE` where there is none"""
    garbled: list[int]
    """(N,) whether the request was garbled; `IGNORE` where there is none"""


class PretrainingHeads(nn.Module):
    """(·, E) token states → word pieces; (N, D) turn states → swapped, garbled."""

    def __init__(self, vocabulary: int, token_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(token_width, token_width), nn.GELU(), nn.LayerNorm(token_width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.swapped = mlp(width, width, 2, dropout)
        self.garbled = mlp(width, width, 2, dropout)

    def pieces(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """Scores of all word pieces; `embeddings` are the encoder's own (tied; Press and Wolf 2017)."""
        return functional.linear(self.token(states), embeddings, self.bias)


class Pretrainer(Learner):
    """Pretrains a model step by step; `finish` takes the heads off it again."""

    config: PretrainingConfig

    def __init__(self, model: Model, sources: Sequence[Source], config: PretrainingConfig, garble: Garble) -> None:
        words = model.turn_encoder.words.config
        # Part of the model while it learns, so that they are optimised, averaged and kept in checkpoints with it.
        self.heads = PretrainingHeads(
            words.vocab_size, words.hidden_size, model.config.turn.width, model.config.turn.dropout
        )
        model.add_module("pretraining", self.heads)
        super().__init__(model, sources, config)
        self._garble = garble
        special = model.tokenizer.tokenizer.get_added_tokens_decoder()
        self._special = np.array(sorted(special))
        self._plain = np.setdiff1d(np.arange(words.vocab_size), self._special)
        self._mask = model.tokenizer.mask_id

    def losses(self, step: Step, rng: random.Random) -> dict[str, tuple[float, Tensor]]:
        """Of the three tasks, by name."""
        dialogues = [self.sources[step.source].dialogues[index] for index in step.dialogues]
        responses = [turn.response.text for each in dialogues for turn in each.turns if turn.response]
        disturbed = [disturb(each, responses, self.config, self._garble, rng) for each in dialogues]
        model, device = self.model, self.model.device
        tokenized = model.tokenizer.dialogues([each.dialogue for each in disturbed])
        chance = np.random.default_rng(rng.getrandbits(64))
        masked = [self.mask(turn, chance) for each in tokenized for turn in each]
        features = [turn_features(each.dialogue) for each in disturbed]
        pooled, order, pieces, wanted = [], [], [], []
        with self.autocast():
            for indexes, packing in packs([len(turn.ids) for turn, _ in masked], device):
                packed = PackedTurns.of([masked[index][0] for index in indexes], packing, model.tokenizer.pad_id)
                states = model.turn_encoder.tokens(packed)
                pooled.append(model.turn_encoder.pool(states, packed))
                order.append(indexes)
                answers = packing.fill([masked[index][1] for index in indexes], IGNORE)
                asked = answers != IGNORE
                pieces.append(states[asked])
                wanted.append(answers[asked])
            back = placed(np.argsort(np.concatenate(order)), device)
            vectors = model.turn_encoder(
                torch.cat(pooled)[back],
                placed(np.concatenate([each.numbers for each in features]), device),
                placed(np.concatenate([each.categories for each in features]), device),
            )
            lengths = [len(each) for each in tokenized]
            first = np.cumsum([0, *lengths]).tolist()[:-1]
            states = model.encode_turns_in_dialogues(vectors, lengths, first)
            embeddings = model.turn_encoder.words.embeddings.word_embeddings.weight
            scores = self.heads.pieces(torch.cat(pieces), embeddings)
            swapped, garbled = self.heads.swapped(states), self.heads.garbled(states)
        return {
            "masked": (1.0, _loss(scores, torch.cat(wanted))),
            "swapped": (1.0, _loss(swapped, torch.tensor([each for of in disturbed for each in of.swapped]))),
            "garbled": (1.0, _loss(garbled, torch.tensor([each for of in disturbed for each in of.garbled]))),
        }

    def mask(self, turn: TokenizedTurn, chance: np.random.Generator) -> tuple[TokenizedTurn, npt.NDArray[np.int64]]:
        """The turn with some of its pieces hidden, and (L,) the pieces that were there, `IGNORE` elsewhere."""
        chosen = (chance.random(len(turn.ids)) < self.config.masked) & ~np.isin(turn.ids, self._special)
        kind = chance.random(len(turn.ids))
        ids = np.where(chosen & (kind < 0.8), self._mask, turn.ids)
        other = chance.choice(self._plain, len(turn.ids))
        ids = np.where(chosen & (kind >= 0.8) & (kind < 0.9), other, ids)
        return turn._replace(ids=ids), np.where(chosen, turn.ids, IGNORE)

    def finish(self) -> None:
        """Puts the averaged weights into the model, rounded to what is stored, and takes the heads off."""
        super().finish()
        del self.model.pretraining


def disturb(
    dialogue: Dialogue,
    responses: Sequence[str | None],
    config: PretrainingConfig,
    garble: Garble,
    rng: random.Random,
) -> Disturbed:
    """What was said in the dialogue, with some responses swapped and some requests garbled.

    `responses` are those to choose from, besides the dialogue's own.
    """
    own = [turn.response.text for turn in dialogue.turns if turn.response]
    turns, swapped, garbled = [], [], []
    for turn in dialogue.turns:
        request, response = turn.text or "", turn.response.text if turn.response else None
        swapped.append(0 if response else IGNORE)
        garbled.append(0 if request else IGNORE)
        if response and rng.random() < config.swapped:
            other = rng.choice(own if rng.random() < 0.5 else responses) or response
            swapped[-1] = int(other != response)
            response = other
        if request and rng.random() < config.garbled:
            heard = garble(request, rng)
            garbled[-1] = int(heard != request)
            request = heard
        # What was heard and understood besides would give the answers away.
        turns.append(Turn(text=request, response=Response(text=response)))
    changed = copy.copy(dialogue)
    changed.turns = turns
    return Disturbed(changed, swapped, garbled)


def _loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy; 0 where nothing is asked."""
    targets = targets.to(scores.device)
    if not bool((targets != IGNORE).any()):
        return scores.sum() * 0.0
    return functional.cross_entropy(scores.float(), targets, ignore_index=IGNORE)
