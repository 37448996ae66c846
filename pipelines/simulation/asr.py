"""Speech recognition: a noisy channel over phonemes, decoded with a language model.

- A word is its pronunciation in the CMU Pronouncing Dictionary, as CMU PocketSphinx comes with it.
- What else a stretch of sound may be (one word, two words run together, one word heard as two, nothing at all)
  is what sounds nearest in the recogniser's vocabulary, by edit distance over phonemes in which a confusion
  within a class of sounds (p and b, s and z) costs half.
- The acoustic evidence for each is that distance, scaled by how clear the sound was, with noise; a beam search
  adds a bigram model of what is said in this world, mixed with PocketSphinx's model of English.
- Scores are log-probabilities over the n-best list, as in DSTC2.

A word that the recogniser does not know cannot be recognised: it comes out as its neighbours do. So does a burst
of noise, which is like nothing in particular: there what is expected decides (`telephone`).
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pocketsphinx
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from pipelines.simulation.telephone import BURSTS
from pipelines.simulation.world import OUT_OF_VOCABULARY, World
from schemas.log import AsrHypothesis

_CLASSES = "P B|T D|K G|CH JH|F V TH DH|S Z SH ZH|HH|M N NG|L R|W Y|IY IH|EH EY AE|AA AO AH|UH UW|OW|ER|AY|AW|OY"
"""Phonemes of ARPABET that are taken for each other."""
_ENGLISH_WORDS = 2500
"""Of PocketSphinx's English, the most frequent so many are in the vocabulary."""
_LM_UNIT = 1e-4
"""PocketSphinx's log-probabilities are logarithms to the base 1.0001."""
_BEAM = 4
_CANDIDATES = 5
_CANDIDATES_OF_NOISE = 12
_SILENCE = 1.4
"""Distance of a burst of noise from nothing at all, in phonemes."""
_NBEST_OF_THE_LINE = 10
_FILLERS = ("uh", "you", "i", "the", "a")
"""What the silence around words is heard as on an open line."""
_FILLED = 4.5
"""Nats that this costs."""
_EXPECTED = math.log(0.1)
"""Log-probability, at least, of a word that the answer to a question may well have."""
_NBEST = 8
_LM_WEIGHT = 0.7
_MATCH = 7.0
"""Log-likelihood that a unit of phoneme distance costs in a clear sound."""
_SPREAD = 1.0
"""Standard deviation of the evidence's noise, nats."""
_PRUNE = 7.0
"""Nats below the best at which an alternative is not looked at."""
_SCALE = 0.6
"""Turns scores of the search into posteriors that are about as sure as a real recogniser's."""
_SCALE_OF_THE_LINE = 1.0
"""The same on a telephone line, whose recogniser knows what to expect and is surer of it."""
_SCALE_SPREAD = 0.35
_SCALE_SPREAD_OF_THE_LINE = 0.5
"""Standard deviation of the logarithm of the scale: a recogniser does not know how sure it ought to be."""
_DROPPED = 0.12
"""Of hard sounds, the share of which the beginning or the end is lost."""


_End = tuple[float, tuple[str, ...], str]
"""A way to have heard everything up to somewhere: its score, its words, and the last of them."""


class Alternative(NamedTuple):
    """What a stretch of sound may be."""

    words: tuple[str, ...]
    distance: float
    """From what was said, in phonemes."""


class Recogniser:
    """Hears words through noise. The same on every machine."""

    def __init__(self, world: World) -> None:
        dictionary, english = _pocketsphinx(world.words())
        self._pronunciations = dictionary
        vocabulary = sorted((set(world.words()) | set(english)) - OUT_OF_VOCABULARY)
        self._words = [(word,) for word in vocabulary] + [
            (first, word) for first in ("a", "the", "to") for word in vocabulary
        ]
        self._single = len(vocabulary)
        said = set(world.words())
        self._in_domain = tuple(number for number, word in enumerate(vocabulary) if word in said)
        self._number = {word: number for number, word in enumerate(vocabulary)}
        self._sounds = ["".join(dictionary[word] for word in words) for words in self._words]
        self._broad = [_broad(sound) for sound in self._sounds]
        self._train(world.all_speech(seed=1, count=15_000), vocabulary, english)
        self.word_alternatives = functools.lru_cache(20_000)(self._word_alternatives)
        self.noise_alternatives = functools.lru_cache(20_000)(self._noise_alternatives)
        self.pair_alternatives = functools.lru_cache(50_000)(self._pair_alternatives)

    def sound_of(self, text: str) -> str:
        """The pronunciation of words, a character a phoneme. Words that nobody knows are silent."""
        return "".join(self._pronunciations.get(word, "") for word in text.split())

    def _train(self, texts: list[str], vocabulary: list[str], english: dict[str, float]) -> None:
        known = set(vocabulary)
        unigrams: Counter[str] = Counter()
        bigrams: Counter[tuple[str, str]] = Counter()
        for text in texts:
            words = ["<s>", *(word for word in text.split() if word in known), "</s>"]
            unigrams.update(words)
            bigrams.update(itertools.pairwise(words))
        total = sum(unigrams.values())
        floor = min(english.values())
        self._unigram = {
            word: 0.3 * unigrams[word] / total + 0.1 * math.exp(english.get(word, floor))
            for word in [*vocabulary, "</s>"]
        }
        self._log_unigram = {word: math.log(p) for word, p in self._unigram.items()}
        self._log_bigram = {
            (first, second): math.log(0.6 * count / unigrams[first] + self._unigram[second])
            for (first, second), count in bigrams.items()
        }

    def knows(self, word: str) -> bool:
        """Whether there is a pronunciation of a word, though the recogniser itself may never have heard it."""
        return word in self._pronunciations

    def hear(
        self, text: str, difficulty: float, rng: random.Random, line: frozenset[str] | None = None
    ) -> list[AsrHypothesis]:
        """What is recognised of `text`, best first.

        `difficulty` is 0 for a perfectly clear sound and about 1 for a noisy room. `line`: this is an open telephone
        line, the text may have bursts of noise, and these are words that an answer to the last question may have.
        """
        expected = line or frozenset()
        words = text.split()
        if len(words) > 2 and rng.random() < _DROPPED * min(difficulty, 2.0) / 2.0:
            lost = rng.choice((1, 1, 1, 2))
            words = words[lost:] if rng.random() < 0.4 else words[:-lost]
        if not words:
            return [AsrHypothesis(text="", score=round(-rng.expovariate(2.0) - 0.05, 4))]
        match = _MATCH / (1.0 + difficulty)
        spread = _SPREAD * (1.0 + 0.4 * difficulty)
        beams: list[list[_End]] = [[] for _ in range(len(words) + 1)]
        beams[0] = [(0.0, (), "<s>")]
        gauss, log_bigram, log_unigram = rng.gauss, self._log_bigram, self._log_unigram
        for position, word in enumerate(words):
            beam = beams[position]
            if len(beam) > _BEAM:
                beam = sorted(beam, reverse=True)[:_BEAM]
            # A mumbled word is further from what it should be than its neighbours are.
            clarity = match * math.exp(gauss(0.0, 0.25 + 0.2 * difficulty))
            noise = word in BURSTS
            near = self.noise_alternatives(word, expected) if noise else self.word_alternatives(word)
            arcs = [(alternative, 1) for alternative in near]
            if position + 1 < len(words) and not noise:
                arcs += [(alternative, 2) for alternative in self.pair_alternatives(word, words[position + 1])]
            nearest = arcs[0][0].distance
            for (said, distance), span in arcs:
                evidence = -distance * clarity
                if evidence < -_PRUNE - nearest * clarity:
                    continue
                evidence += gauss(0.0, spread) if distance else 0.0
                target = beams[position + span]
                for total, before, last in beam:
                    grown = total + evidence
                    for each in said:
                        step = log_bigram.get((last, each))
                        if step is None:
                            step = log_unigram[each]
                        if step < _EXPECTED and each in expected:
                            step = _EXPECTED
                        grown += _LM_WEIGHT * step
                        last = each
                    target.append((grown, before + said, last))
        ends = beams[-1] if line is None else self._filled(beams[-1], rng)
        return self._nbest(ends, difficulty, rng, on_a_line=line is not None)

    def _filled(self, ends: list[_End], rng: random.Random) -> list[_End]:
        """The hypotheses, and what the best are with a small word before or after them."""
        found = list(ends)
        for total, words, last in heapq.nlargest(_BEAM, ends):
            for filler in _FILLERS:
                cost = _FILLED + rng.expovariate(1.0)
                filled = ((filler, *words), last) if rng.random() < 0.3 else ((*words, filler), filler)
                found.append((total - cost, *filled))
        return found

    def _nbest(
        self, ends: list[_End], difficulty: float, rng: random.Random, *, on_a_line: bool
    ) -> list[AsrHypothesis]:
        best: dict[tuple[str, ...], float] = {}
        for total, words, last in ends:
            step = self._log_bigram.get((last, "</s>"))
            total += _LM_WEIGHT * (self._log_unigram["</s>"] if step is None else step)
            if total > best.get(words, -math.inf):
                best[words] = total
        ranked = sorted(((total, words) for words, total in best.items()), reverse=True)
        size, scale, spread = _NBEST, _SCALE, _SCALE_SPREAD
        if on_a_line:
            size, scale, spread = _NBEST_OF_THE_LINE, _SCALE_OF_THE_LINE, _SCALE_SPREAD_OF_THE_LINE
        ranked = ranked[:size]
        scale *= math.exp(rng.gauss(0.0, spread))
        top = ranked[0][0]
        weights = [math.exp(scale * (total - top)) for total, _ in ranked]
        rest = 0.02 * math.exp(rng.gauss(0.0, 1.2) + (2.2 if on_a_line else 1.5) * difficulty)
        norm = math.log(sum(weights) + rest)
        return [
            AsrHypothesis(text=" ".join(words), score=round(scale * (total - top) - norm, 4)) for total, words in ranked
        ]

    def _word_alternatives(self, word: str) -> tuple[Alternative, ...]:
        sound = self._pronunciations[word]
        long = len(sound) >= 5
        limit = max(1.5, 0.55 * len(sound))
        found: list[Alternative] = []
        while not found:
            found = self._nearest(sound, len(self._words) if long else self._single, limit)
            limit += 1.0
        if len(sound) <= 3:
            found.append(Alternative((), 0.4 + 0.6 * len(sound)))
        return tuple(found)

    def _noise_alternatives(self, burst: str, expected: frozenset[str]) -> tuple[Alternative, ...]:
        """The nearest words of all that are said in this world, the nearest that are expected, and nothing."""
        sound = self._pronunciations[burst]
        awaited = tuple(sorted(self._number[word] for word in expected if word in self._number))
        found = {(): _SILENCE}
        for numbers in filter(None, (self._in_domain, awaited)):
            distances = np.zeros(len(numbers))
            for heard, sounds in ((sound, self._sounds), (_broad(sound), self._broad)):
                distances += cdist([heard], [sounds[i] for i in numbers], scorer=Levenshtein.distance)[0] / 2.0
            for nearest in np.argsort(distances, kind="stable")[:_CANDIDATES_OF_NOISE]:
                found[self._words[numbers[nearest]]] = float(distances[nearest])
        return tuple(Alternative(*each) for each in sorted(found.items(), key=lambda each: each[1]))

    def _pair_alternatives(self, first: str, second: str) -> tuple[Alternative, ...]:
        sound = self._pronunciations[first] + self._pronunciations[second]
        if len(sound) > 9:
            return ()
        return tuple(self._nearest(sound, self._single, 1.5)[:2])

    def _nearest(self, sound: str, choices: int, limit: float) -> list[Alternative]:
        # The broad distance is never the longer one: what it rules out need not be looked at more closely.
        broad = cdist([_broad(sound)], self._broad[:choices], scorer=Levenshtein.distance, score_cutoff=int(limit))[0]
        near = np.flatnonzero(broad <= limit)
        exact = cdist([sound], [self._sounds[i] for i in near], scorer=Levenshtein.distance)[0]
        distances = (exact + broad[near]) / 2.0
        order = np.argsort(distances, kind="stable")[: _CANDIDATES + 1]
        return [Alternative(self._words[near[i]], float(distances[i])) for i in order if distances[i] <= limit]


_PHONEMES = {
    phoneme: (chr(0x100 + number), chr(0x200 + group))
    for number, (phoneme, group) in enumerate(
        (phoneme, group) for group, members in enumerate(_CLASSES.split("|")) for phoneme in members.split()
    )
}
_TO_BROAD = str.maketrans(dict(_PHONEMES.values()))


def _broad(sound: str) -> str:
    return sound.translate(_TO_BROAD)


def _pocketsphinx(needed: list[str]) -> tuple[dict[str, str], dict[str, float]]:
    """Pronunciations by word, a character a phoneme, and the log-probabilities of the most frequent words."""
    dictionary: dict[str, str] = {}
    for line in Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text("utf-8").splitlines():
        word, _, phonemes = line.partition(" ")
        if word.replace("'", "").isalpha():
            dictionary[word] = "".join(_PHONEMES[phoneme][0] for phoneme in phonemes.split())
    model = pocketsphinx.NGramModel.readfile(pocketsphinx.get_model_path("en-us/en-us.lm.bin"))
    ranked = heapq.nlargest(_ENGLISH_WORDS, ((model.prob([word]), word) for word in dictionary))
    for name, sounds in BURSTS.items():
        dictionary[name] = "".join(_PHONEMES[phoneme][0] for phoneme in sounds)
    for word in needed:
        if word not in dictionary:
            dictionary[word] = _compound(word, dictionary)
    return dictionary, {word: score * _LM_UNIT for score, word in ranked}


def _compound(word: str, dictionary: dict[str, str]) -> str:
    for cut in range(3, len(word) - 2):
        if word[:cut] in dictionary and word[cut:] in dictionary:
            return dictionary[word[:cut]] + dictionary[word[cut:]]
    raise LookupError(f"nobody knows how {word!r} is pronounced")
