"""Words as a recogniser might hear them, for text of any kind: what sounds alike is taken for each other.

It shares its dictionary and its measure of sound with the simulator's recogniser, and is much simpler: no language
model chooses, and there are no scores. A word that the dictionary lacks is left as it is.
"""

from __future__ import annotations

import math
import random
import re

from pipelines.simulation.asr import Recogniser
from pipelines.simulation.world import World

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_RATE = 0.12
"""Share of the words that are misheard; at least one is."""
_LOST, _DOUBLED = 0.12, 0.06
"""Of these, the shares that are not heard at all, and heard twice."""


class Garbler:
    """Garbles texts. Call it with a text and what chance is drawn from."""

    def __init__(self) -> None:
        self._recogniser = Recogniser(World())

    def __call__(self, text: str, rng: random.Random) -> str:
        """The text with some words misheard; the same text where there is no word that could be."""
        words = [match for match in _WORD.finditer(text) if self._recogniser.knows(match[0].lower())]
        if not words:
            return text
        count = max(1, sum(rng.random() < _RATE for _ in words))
        pieces, end = [], 0
        for match in sorted(rng.sample(words, count), key=lambda each: each.start()):
            pieces += [text[end : match.start()], self._heard(match[0].lower(), rng)]
            end = match.end()
        return " ".join("".join([*pieces, text[end:]]).split())

    def _heard(self, word: str, rng: random.Random) -> str:
        kind = rng.random()
        if kind < _LOST:
            return ""
        if kind < _LOST + _DOUBLED:
            return f"{word} {word}"
        others = [each for each in self._recogniser.word_alternatives(word) if each.words != (word,)]
        weights = [math.exp(-each.distance) for each in others]
        return " ".join(rng.choices(others, weights)[0].words) if others else ""
