"""Language understanding: a small classifier and a small tagger, trained at start-up on plain phrasings.

- Intent: one-against-all logistic regression on words and word pairs.
- Slots: the same on each word with its neighbours and with what the gazetteers know of it; tags are B-slot,
  I-slot, O, and only those that the intent can have.

It has never seen the free phrasings, nor a third of the names, so its mistakes are its own. What it knows of the
dialogue is what the assistant has just asked for.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import SGDClassifier

from pipelines.simulation.action import CHOOSE, CONFIRM, ELICIT
from pipelines.simulation.phrases import INTENTS, VALUES
from pipelines.simulation.world import SLOT, Said, World
from schemas.log import NluHypothesis, Slot

NONE = "none"
"""The intent of what is not meant for the assistant."""
_TRAINING_PHRASES = 6_000
_EPOCHS = 6
_KNOWN_NAMES = 0.67
"""Share of the catalogue that the gazetteers have."""
_UNKNOWN = "<unknown>"
_FORGOTTEN = 0.1
"""Share of words that are hidden from the tagger in training, so that it can make do without them."""
_ASKED = 3.0
_NOT_ASKED = -2.5
"""Log-odds that an answer gains (and silence loses) when the assistant has asked, and that it loses when not."""
_SHARPNESS = 0.4
"""Of the scores: a classifier trained on few phrasings is surer than it should be."""
_NBEST = 4
_FLOOR = 0.01
"""Score under which an intent is not listed."""
_ANSWERS = frozenset({"yes", "no", "inform"})


class _Linear(NamedTuple):
    """A trained linear model: weights by feature and class."""

    rows: Mapping[str, int]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    classes: list[str]

    def scores(self, features: list[str]) -> npt.NDArray[np.float32]:
        """(classes,) log-odds of each class."""
        found = [self.rows[each] for each in features if each in self.rows]
        return self.weights[found].sum(axis=0) + self.bias if found else self.bias

    @classmethod
    def trained(cls, examples: Sequence[list[str]], labels: Sequence[str], alpha: float) -> _Linear:
        vectorizer = DictVectorizer(dtype=np.float32)
        matrix = vectorizer.fit_transform([dict.fromkeys(features, 1.0) for features in examples])
        # scikit-learn makes wide indices and then does not take them.
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
        model = SGDClassifier(loss="log_loss", alpha=alpha, max_iter=_EPOCHS, tol=None, random_state=0)
        model.fit(matrix, labels)
        weights = np.ascontiguousarray(model.coef_.T.astype(np.float32))
        return cls(
            vectorizer.vocabulary_,
            weights,
            model.intercept_.astype(np.float32),
            [str(label) for label in model.classes_],
        )


class Understander:
    """Words in, ranked frames out."""

    def __init__(self, world: World) -> None:
        said = world.training_speech(seed=2, count=_TRAINING_PHRASES)
        self._gazetteer = _gazetteer(world)
        self._intents = _Linear.trained(
            [_phrase_features(each.text) for each in said], [each.intent for each in said], 1e-5
        )
        self._known = frozenset(word for each in said for word in each.text.split())
        rng = random.Random(4)
        features, tags = [], []
        for each in said:
            words = [word if rng.random() >= _FORGOTTEN else _UNKNOWN for word in each.text.split()]
            features += [self._word_features(words, position) for position in range(len(words))]
            tags += _tags(each)
        self._slots = _Linear.trained(features, tags, 1e-5)
        column = {tag: number for number, tag in enumerate(self._slots.classes)}
        self._allowed = {
            intent: [tag for slot in _slots_of(intent) for tag in (f"B-{slot}", f"I-{slot}") if tag in column]
            for intent in INTENTS
        }
        self._columns = {
            intent: np.array([column["O"], *(column[tag] for tag in tags)]) for intent, tags in self._allowed.items()
        }
        answers = np.array([each in _ANSWERS for each in self._intents.classes])
        told = np.array([each == "inform" for each in self._intents.classes])
        silence = np.where(np.array(self._intents.classes) == NONE, -_ASKED, 0.0)
        self._asked = {
            "": np.where(told, _NOT_ASKED, 0.0),
            ELICIT: np.where(told, _ASKED, silence),
            CONFIRM: np.where(answers, _ASKED, silence),
            CHOOSE: np.where(answers, _ASKED, silence),
        }
        self._emissions = functools.lru_cache(100_000)(self._emission)
        self.parse = functools.lru_cache(50_000)(self._parse)

    def _parse(self, text: str, asked: str) -> tuple[NluHypothesis, ...]:
        """Ranked frames, at least one. `asked`: the kind of question (`action`) that waits for its answer, if any."""
        words = text.split()
        logits = self._intents.scores(_phrase_features(text)) + self._asked[asked]
        odds = 1.0 / (1.0 + np.exp(-_SHARPNESS * logits))
        # Nothing at all fits: it says so with a low score, not with a share of nothing.
        odds = odds / max(float(odds.sum()), 0.6)
        order = np.argsort(-odds, kind="stable")[:_NBEST]
        found = []
        for rank, index in enumerate(order):
            score = float(odds[index])
            if rank and score < _FLOOR:
                break
            intent = self._intents.classes[index]
            domain = INTENTS[intent].domain if intent in INTENTS else NONE
            slots = self._tag(words, intent) if intent in self._allowed else []
            found.append(NluHypothesis(domain=domain, intent=intent, slots=slots, score=round(score, 4)))
        return tuple(found)

    def _tag(self, words: list[str], intent: str) -> list[Slot]:
        tags = self._allowed[intent]
        if not tags or not words:
            return []
        columns = self._columns[intent]
        padded = ["", "", *(word if word in self._known else _UNKNOWN for word in words), "", ""]
        slots: list[Slot] = []
        current, start, end, sure = "", 0, 0, 1.0
        offset = 0
        for position, word in enumerate(words):
            logits = self._emissions(*padded[position : position + 5])[columns]
            choice = int(logits.argmax())
            tag = tags[choice - 1] if choice else "O"
            name = tag[2:]
            probability = float(1.0 / np.exp(_SHARPNESS * (logits - logits[choice])).sum())
            if current and not (tag.startswith("I-") and name == current):
                slots.append(_slot(words, current, start, end, sure))
                current = ""
            if tag != "O":
                if current:
                    end, sure = offset + len(word), min(sure, probability)
                else:
                    current, start, end, sure = name, offset, offset + len(word), probability
            offset += len(word) + 1
        if current:
            slots.append(_slot(words, current, start, end, sure))
        return slots

    def _emission(self, *window: str) -> npt.NDArray[np.float32]:
        return self._slots.scores(self._window_features(window))

    def _word_features(self, words: Sequence[str], position: int) -> list[str]:
        padded = ("", "", *words, "", "")
        return self._window_features(padded[position : position + 5])

    def _window_features(self, window: Sequence[str]) -> list[str]:
        before2, before, word, after, after2 = window
        features = [
            f"w={word}",
            f"-1={before}",
            f"+1={after}",
            f"-2={before2} {before}",
            f"+2={after} {after2}",
            f"-w={before} {word}",
            f"w+={word} {after}",
        ]
        for name, at in (("g", word), ("-g", before), ("+g", after)):
            features += [f"{name}={kind}" for kind in self._gazetteer.get(at, ())]
        return features


def true_parse(intent: str, slots: Mapping[str, str], text: str) -> NluHypothesis:
    """The frame that a perfect understander gives for `text`."""
    domain = INTENTS[intent].domain if intent in INTENTS else NONE
    return NluHypothesis(
        domain=domain, intent=intent, slots=[spanned(text, name, value) for name, value in slots.items()], score=0.99
    )


def spanned(text: str, name: str, value: str) -> Slot:
    """The slot with the span at which `text`, words with one space between them, has `value` as whole words."""
    start = f" {text} ".find(f" {value} ") if value else -1
    if start < 0:
        return Slot(name=name, value=value)
    return Slot(name=name, value=value, start=start, end=start + len(value))


def _slot(words: list[str], name: str, start: int, end: int, sure: float) -> Slot:
    return Slot(name=name, value=" ".join(words)[start:end], start=start, end=end, score=round(sure, 4))


@functools.cache
def _slots_of(intent: str) -> tuple[str, ...]:
    return tuple(sorted({slot for phrase in INTENTS[intent].plain for slot in SLOT.findall(phrase)}))


def _phrase_features(text: str) -> list[str]:
    words = ["<s>", *text.split(), "</s>"]
    return [*words, *(f"{first} {second}" for first, second in itertools.pairwise(words))]


def _tags(said: Said) -> list[str]:
    words = said.text.split()
    tags = ["O"] * len(words)
    for name, value in said.slots.items():
        parts = value.split()
        for start in range(len(words) - len(parts) + 1):
            if words[start : start + len(parts)] == parts and tags[start] == "O":
                tags[start : start + len(parts)] = [f"B-{name}"] + [f"I-{name}"] * (len(parts) - 1)
                break
    return tags


def _gazetteer(world: World) -> dict[str, tuple[str, ...]]:
    """Word → the slots whose known names have it."""
    rng = random.Random(3)
    kinds: dict[str, set[str]] = {}
    for kind, entities in world.entities.items():
        for entity in entities:
            if rng.random() < _KNOWN_NAMES:
                for word in entity.full.split():
                    kinds.setdefault(word, set()).add(kind)
    for kind, values in VALUES.items():
        for value in values:
            for word in value.split():
                kinds.setdefault(word, set()).add(kind)
    return {word: tuple(sorted(found)) for word, found in kinds.items()}
