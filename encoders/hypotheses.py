"""What the n-best lists of a turn say together: how much of their weight a slot, a frame or a word has.

A dialogue's state is tracked by such sums over the hypotheses, not by the first one alone (Henderson, Thomson and
Williams 2014, *The Second Dialog State Tracking Challenge*): a slot that only lower hypotheses have may be what the
user meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from schemas.log import Turn

TEXT_LIMIT = 1_000
"""Characters of a text that are looked at: similarities are quadratic, and a request is seldom longer."""

MOST = 32
"""Hypotheses of a list that are looked at."""

Pair = tuple[str, str]
"""A slot's name, and its value in lower case."""


class Hypotheses(NamedTuple):
    """Of one turn, best first."""

    frames: list[frozenset[Pair]]
    """the slots of each NLU hypothesis"""
    weights: list[float]
    """of the frames, which sum to 1"""
    masses: dict[Pair, float]
    """the weight of the frames that have a slot, for each slot"""
    texts: list[str]
    """of the ASR hypotheses, in lower case"""
    text_weights: list[float]
    """which sum to 1"""

    @classmethod
    def of(cls, turn: Turn) -> Hypotheses:
        """Those of this turn; alike where not all have a score."""
        nlu, asr = turn.nlu[:MOST], turn.asr[:MOST]
        frames = [frozenset((slot.name, slot.value.lower()) for slot in each.slots if slot.value) for each in nlu]
        weights = _weights([each.score for each in nlu])
        masses: dict[Pair, float] = {}
        for frame, weight in zip(frames, weights, strict=True):
            for pair in frame:
                masses[pair] = masses.get(pair, 0.0) + weight
        return cls(frames, weights, masses, [clip(each.text) for each in asr], _weights([each.score for each in asr]))

    @property
    def first(self) -> frozenset[Pair]:
        """The slots that the assistant acted on."""
        return self.frames[0] if self.frames else frozenset()

    @property
    def others(self) -> dict[Pair, float]:
        """The masses of the slots that the first hypothesis lacks."""
        return {pair: mass for pair, mass in self.masses.items() if pair not in self.first}

    def frame_mass(self, frame: frozenset[Pair]) -> float:
        """The weight of the hypotheses with just these slots."""
        return sum(weight for each, weight in zip(self.frames, self.weights, strict=True) if each == frame)

    def heard(self, value: str) -> float:
        """The weight of the texts that have a value."""
        return sum(weight for text, weight in zip(self.texts, self.text_weights, strict=True) if value in text)


def clip(text: str | None) -> str:
    """The part of a text that is looked at, in lower case."""
    return (text or "")[:TEXT_LIMIT].lower()


def response_text(turn: Turn | None) -> str:
    """What of the turn's response is looked at, in lower case; empty where there is no turn or no response."""
    return clip(turn.response.text) if turn and turn.response else ""


def posterior(scores: Sequence[float]) -> list[float]:
    """Scores as weights that sum to 1: as they are if they are probabilities, else as log-probabilities."""
    if not scores:
        return []
    if min(scores) < 0:
        top = max(scores)
        scores = [math.exp(max(score - top, -50.0)) for score in scores]
    total = sum(scores)
    return [score / total for score in scores] if total > 0 else [1 / len(scores)] * len(scores)


def _weights(scores: Sequence[float | None]) -> list[float]:
    known = [score for score in scores if score is not None]
    return posterior(known) if len(known) == len(scores) else [1 / len(scores)] * len(scores)
