"""What every labeler is: a head over the encoded turns, with its loss, its decoding and its calibration.

A labeler chooses, for each of M questions (a turn, a goal, a token), one of K answers. It says how the answers
score (`logits`) and which is annotated (`targets`); the loss, the temperature, the abstention threshold and, where
there is one, the point of decision follow from these two for all labelers alike.

Dimensions: N turns (of all dialogues of a batch, one after the other), D turn state width, K tokens of the users,
E token width, I intents, S slots of the ontology.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.labels import Label
from schemas.log import Dialogue, Turn
from schemas.ontology import Ontology

IGNORE = -100
"""Target of a question that nobody answered."""
TURNS = 256
"""Turns that a labeler scores at a time where a turn has many rows (its tokens, the turns before it, all names): more
take more memory than encoding them did, all of a dialogue of thousands of turns gigabytes."""


@dataclass(frozen=True)
class LabelerConfig:
    """Widths that the labelers share, in elements."""

    width: int
    """D"""
    token_width: int
    """E"""
    dropout: float = 0.2


class Reachable(NamedTuple):
    """What of an ontology can be meant in a dialogue."""

    intents: frozenset[str]
    slots: frozenset[str]
    slots_by_intent: dict[str, frozenset[str]]
    """the slots of the services that have an intent"""
    closed_slots: dict[str, frozenset[str]]
    """the values, in lower case, of slots that can have no others"""

    @classmethod
    def of(cls, ontology: Ontology) -> Reachable:
        """All of it."""
        intents, slots = (frozenset(each.name for each in of) for of in (ontology.intents, ontology.slots))
        return cls(intents, slots, ontology.slots_by_intent, ontology.closed_slots)


_REACHES = 1_024
"""Sets of services of which is kept what can be meant with them."""


class EncodedOntology(NamedTuple):
    """An ontology with a vector for every name."""

    ontology: Ontology
    intents: list[str]
    slots: list[str]
    intent_vectors: Tensor
    """(I, E)"""
    slot_vectors: Tensor
    """(S, E)"""
    everything: Reachable
    reach: Callable[[frozenset[str]], Reachable]
    """what can be meant with these services; keeps what it has found, whichever thread asks"""

    @classmethod
    def of(cls, ontology: Ontology, intent_vectors: Tensor, slot_vectors: Tensor) -> EncodedOntology:
        """The ontology with these vectors, which are in the order of its names."""
        intents, slots = [each.name for each in ontology.intents], [each.name for each in ontology.slots]
        everything = Reachable.of(ontology)

        @functools.lru_cache(_REACHES)
        def reach(services: frozenset[str]) -> Reachable:
            within = Reachable.of(ontology.reachable(services))
            # A choice of an intent needs one.
            return within if within.intents else within._replace(intents=everything.intents)

        return cls(ontology, intents, slots, intent_vectors, slot_vectors, everything, reach)

    def reachable(self, dialogue: Dialogue) -> Reachable:
        """What can be meant in a dialogue."""
        return self.everything if dialogue.services is None else self.reach(frozenset(dialogue.services))


class Encoded(NamedTuple):
    """Encoded dialogues, turns one after the other."""

    dialogues: Sequence[Dialogue]
    first: list[int]
    """position of each dialogue's first turn in the N"""
    states: Tensor
    """(N, D), in float32"""
    numbers: Tensor
    """(N, F) features of the turns, NaN where missing (`encoders.features`)"""
    categories: Tensor
    """(N, C), 0 where missing"""
    user_tokens: Tensor
    """(K, E) states of the users' tokens, one turn after the other"""
    user_starts: npt.NDArray[np.int64]
    """(N + 1,) where in `user_tokens` those of each turn begin, and the last of them end"""
    user_offsets: list[npt.NDArray[np.int64]]
    """for each turn (tokens, 2): characters of its text"""
    ontology: EncodedOntology
    pairs: Tensor
    """(P, E) vectors of `pair_texts`"""
    pair_texts: dict[tuple[str, str], int]
    """row in `pairs` of each hypothesised (slot, value)"""

    @property
    def turns(self) -> list[Turn]:
        """The N turns."""
        return [turn for dialogue in self.dialogues for turn in dialogue.turns]

    @property
    def reachable(self) -> list[Reachable]:
        """What can be meant by each of the N turns."""
        by_dialogue = ((self.ontology.reachable(each), len(each.turns)) for each in self.dialogues)
        return [reach for reach, turns in by_dialogue for _ in range(turns)]


class Labeler(nn.Module, ABC):
    """Base of all labelers."""

    label: ClassVar[Label]
    positive: ClassVar[slice | None] = None
    """the answers that are looked for among many others, such as the failures among all turns: one of them is given
    where their probabilities sum to `decision`; None: the most probable answer is given"""
    temperature: Tensor
    threshold: Tensor
    decision: Tensor
    """set by `labelers.training.calibrate` to what finds the positive answers best, measured by F1 (Lipton, Elkan and
    Naryanaswamy 2014, arXiv:1402.1892): for what is rare and hard to tell it is well under a half"""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("threshold", torch.zeros(()))
        if self.positive is not None:
            self.register_buffer("decision", torch.tensor(0.5))

    @abstractmethod
    def logits(self, encoded: Encoded) -> Tensor:
        """(M, K) scores, of which a softmax gives probabilities; not yet calibrated."""

    def scores(self, encoded: Encoded) -> Tensor:
        """(M, K) the logits from which it is decided, and which are calibrated: of an answer that cannot be, -inf."""
        return self.logits(encoded)

    @abstractmethod
    def targets(self, encoded: Encoded) -> Tensor:
        """(M,) annotated answers, `IGNORE` where there is none. Same questions as `logits`."""

    def loss(self, encoded: Encoded) -> Tensor:
        """Mean cross-entropy over what is annotated; 0 where nothing is."""
        targets = self.targets(encoded)
        if not bool((targets != IGNORE).any()):
            return encoded.states.sum() * 0.0
        return functional.cross_entropy(self.logits(encoded).float(), targets, ignore_index=IGNORE)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities, (M, K)."""
        return torch.softmax(logits.float() / self.temperature, dim=-1)

    def choose(self, probabilities: Tensor) -> Tensor:
        """(M, K) → (M,) the answers given."""
        if self.positive is None:
            return probabilities.argmax(dim=-1)
        return choose(probabilities, self.positive, float(self.decision))


def positives(positive: slice, answers: int) -> Tensor:
    """(K,) whether each of so many answers is a positive one."""
    kind = torch.zeros(answers, dtype=torch.bool)
    kind[positive] = True
    return kind


def choose(probabilities: Tensor, positive: slice, decision: float) -> Tensor:
    """(M, K) → (M,) the likeliest of the positive answers where these sum to `decision`, else of the others."""
    kind = positives(positive, probabilities.shape[-1]).to(probabilities.device)
    one, other = probabilities.masked_fill(~kind, -1.0), probabilities.masked_fill(kind, -1.0)
    found = probabilities[:, positive].sum(dim=-1) >= decision
    return torch.where(found, one.argmax(dim=-1), other.argmax(dim=-1))


def mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Two layers with GELU between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
