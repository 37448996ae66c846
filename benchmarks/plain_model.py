"""The straightforward way to the same labels, to be faster than, and to agree with.

The weights, features and labelers are those of `labelers.model`. What is straightforward is how words are read: by
transformers' own `RobertaModel.forward` in float32, in batches of turns as they come, padded to their longest; nothing
is sorted, packed, encoded once for several, or kept.

Dimensions: N turns, P names, L tokens of a batch, D turn width, E token width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from encoders.text import Segment, TokenizedTurn
from labelers.base import Encoded
from labelers.goal_segmentation import BACK
from labelers.model import Model
from labelers.slots import _proposals
from schemas.labels import DialogueLabels, Label
from schemas.log import Dialogue
from schemas.ontology import Ontology, words

BATCH = 32
"""Turns, or names, of a batch."""


class _Batch(NamedTuple):
    """Padded sequences that were read together."""

    states: Tensor
    """(B, L, E)"""
    mask: Tensor
    """(B, L), True where there is a token"""
    segments: Tensor
    """(B, L), values of `Segment`, or -1 in padding"""

    def mean(self, of: Tensor) -> Tensor:
        """(B, E): the mean over the tokens where `of`, (B, L), is True; zero where none is."""
        return (self.states * of[:, :, None]).sum(1) / of.sum(1, keepdim=True).clamp_min(1)


class PlainModel(Model):
    """A `Model` that reads words in the straightforward way."""

    def prepare(self) -> None:
        """Leaves the words encoder in float32, with attention that takes padded batches."""
        self.turn_encoder.words.set_attn_implementation("sdpa")

    def _encode_turns(
        self, turns: Sequence[TokenizedTurn], numbers: Tensor, categories: Tensor
    ) -> tuple[Tensor, Tensor]:
        pooled: list[Tensor] = []
        tokens: list[Tensor] = []
        for start, batch in zip(range(0, len(turns), BATCH), self._batches(turns), strict=True):
            fields = [batch.mean(batch.segments == each) for each in (Segment.USER, Segment.RESPONSE)]
            pooled.append(torch.cat([batch.states[:, 0], *fields], dim=-1))
            counts = [len(turn.user_offsets) for turn in turns[start : start + BATCH]]
            tokens += [states[1 : 1 + count] for states, count in zip(batch.states, counts, strict=True)]
        return self.turn_encoder(torch.cat(pooled), numbers, categories), torch.cat(tokens)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        vectors = [batch.mean(batch.mask) for batch in self._batches(self.tokenizer.names(texts))]
        return torch.cat(vectors) if vectors else torch.zeros(0, self.turn_encoder.words.config.hidden_size)

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        return self.encode_texts([f"{words(name)} = {value}" for name, value in pairs])

    def _batches(self, turns: Sequence[TokenizedTurn]) -> Iterator[_Batch]:
        encoder, padding = self.turn_encoder, self.tokenizer.pad_id
        for start in range(0, len(turns), BATCH):
            some = turns[start : start + BATCH]
            ids = pad_sequence([torch.from_numpy(turn.ids) for turn in some], True, padding)
            segments = pad_sequence([torch.from_numpy(turn.segments) for turn in some], True, -1)
            mask = segments >= 0
            embedded = encoder.words.embeddings.word_embeddings(ids) + encoder.segments(segments.clamp_min(0))
            states = encoder.words(inputs_embeds=embedded, attention_mask=mask.long()).last_hidden_state
            yield _Batch(states, mask, segments)


class Margin(NamedTuple):
    """How near the label of a turn is to another, in probability."""

    decision: float
    """of the least sure answer, half the gap to the next best one (of two answers, the distance to .5), or the distance
    to the point of decision"""
    abstention: float
    """of the confidence, the distance to the label's threshold"""


def margins(model: Model, dialogue: Dialogue, labels: DialogueLabels, ontology: Ontology) -> list[dict[Label, Margin]]:
    """Margins of each turn's labels, where `labels` are the model's of this dialogue.

    What is not looked at, and so never excuses a difference: between which names of slots a span was undecided.
    """
    with torch.inference_mode():
        encoded = model.encode([dialogue], model.encode_ontology(ontology))
        asked = {
            label: _of_turns(model, encoded, label) for label in (Label.INTENT, Label.FAILURE_POINT, Label.REPHRASE)
        }
        slots = _slots(model, encoded, labels)
        goals = _goals(model, encoded, labels)
    success = {goal.goal_id: goal.success_confidence for goal in labels.goals}
    threshold = float(model.goal_evaluation.threshold)
    found = []
    for index, turn in enumerate(labels.turns):
        sure = success[turn.goal_id]
        found.append(
            {label: each[index] for label, each in asked.items()}
            | {Label.SLOTS: slots[index], Label.GOAL: goals[index]}
            | {Label.SUCCESS: Margin(sure - 0.5, abs(sure - threshold))}
        )
    return found


def _margin(probabilities: list[float], threshold: float) -> Margin:
    best, second = sorted([*probabilities, 0.0, 0.0], reverse=True)[:2]
    return Margin((best - second) / 2, abs(best - threshold))


def _decided(positives: list[float], others: list[float], decision: float, threshold: float) -> Margin:
    """Of a choice between two kinds of answers, and then among one kind."""
    found = sum(positives)
    among = _margin(positives if found >= decision else others, threshold)
    return Margin(min(abs(found - decision), among.decision), among.abstention)


def _of_turns(model: Model, encoded: Encoded, label: Label) -> list[Margin]:
    """Of a label that is one choice a turn; alone there is nothing to choose."""
    labeler = model.labelers[label]
    threshold = float(labeler.threshold)
    rows = labeler.probabilities(labeler.logits(encoded)).tolist()
    if labeler.positive is None:
        return [_margin(row, threshold) for row in rows]
    decision = float(labeler.decision)
    # The positive answers come last.
    return [_decided(row[labeler.positive], row[: labeler.positive.start], decision, threshold) for row in rows]


def _goals(model: Model, encoded: Encoded, labels: DialogueLabels) -> list[Margin]:
    """The choice is between a new goal and those of the turns before, of which each one's probabilities add up."""
    labeler = model.goal_segmentation
    found: list[Margin] = []
    for index, row in enumerate(labeler.probabilities(labeler.logits(encoded)).tolist()):
        choices: dict[str, float] = {}
        for back in range(1, min(index, BACK) + 1):
            goal = labels.turns[index - back].goal_id
            choices[goal] = choices.get(goal, 0.0) + row[back]
        # The first turn opens a goal whatever the scores.
        unsure = _decided([row[0]], [*choices.values()], float(labeler.decision), float(labeler.threshold))
        found.append(unsure if index else Margin(math.inf, math.inf))
    return found


def _slots(model: Model, encoded: Encoded, labels: DialogueLabels) -> list[Margin]:
    """A turn has a choice for each token and for each proposed value."""
    labeler = model.slots
    tags = labeler.probabilities(labeler.logits(encoded)).tolist()
    gaps = [
        [_margin(each, 0.0).decision for each in tags[start:end]]
        for start, end in itertools.pairwise(encoded.user_starts)
    ]
    proposals = _proposals(encoded)
    if proposals.turns:
        accepted = labeler.probabilities(labeler._proposal_logits(encoded, proposals))[:, 1].tolist()
        for row, sure in zip(proposals.turns, accepted, strict=True):
            gaps[row].append(abs(sure - 0.5))
    threshold = float(labeler.threshold)
    return [
        Margin(
            min(gaps[row], default=math.inf),
            min((abs(slot.confidence - threshold) for slot in turn.slots), default=math.inf),
        )
        for row, turn in enumerate(labels.turns)
    ]
