"""The world as all parts see it: what exists, what can be said, and generated speech to learn from."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.simulation import catalogue
from pipelines.simulation.catalogue import Entity
from pipelines.simulation.phrases import (
    ASIDES,
    BACKGROUND,
    CLOSERS,
    CORRECTIONS,
    INTENTS,
    OPENERS,
    TO_PEOPLE,
    VALUES,
    openers_for,
)

SLOT = re.compile(r"\{(\w+)\}")
OUT_OF_VOCABULARY = frozenset(
    [
        "velvet",
        "davina",
        "ambiguous",
        "nostalgia",
        "zealous",
        "lena",
        "kris",
        "shawn",
        "marie",
        "butterfly",
        "compass",
        "springfield",
        "frugal",
        "aaron",
        "otis",
        "oakland",
        "diane",
        "clare",
        "kingdom",
        "copper",
        "jon",
        "kent",
    ]
)
"""Words that people say and the recogniser has never heard of: new releases, rare names."""


_TO_SOMEBODY = 0.5
_ASKED_OF_PEOPLE = [name for name, intent in INTENTS.items() if intent.rate and intent.domain != "unsupported"]


@dataclass(frozen=True)
class Said:
    """A phrase and what its words mean."""

    text: str
    intent: str
    slots: Mapping[str, str]
    """Slot → the words that were said for it."""


@dataclass(frozen=True)
class World:
    """What exists. Build one with `World()`; it is the same each time."""

    entities: Mapping[str, Sequence[Entity]] = field(default_factory=catalogue.build)

    def sample_value(self, slot: str, rng: random.Random) -> str:
        """Any value of a slot, as one might say it."""
        if slot in self.entities:
            entity = rng.choice(self.entities[slot])
            return entity.short if rng.random() < 0.75 else entity.full
        return rng.choice(VALUES[slot])

    def values(self, slot: str) -> list[str]:
        """All values of a slot, as one might say them."""
        if slot in self.entities:
            return [name for each in self.entities[slot] for name in (each.short, each.full)]
        return list(VALUES[slot])

    def fill(self, template: str, intent: str, rng: random.Random) -> Said:
        """A template with values drawn at random."""
        slots = {name: self.sample_value(name, rng) for name in SLOT.findall(template)}
        return Said(template.format_map(slots), intent, slots)

    def background(self, source: str, rng: random.Random, *, known: bool = False) -> Said:
        """A sentence that is not meant for the assistant, or a part of one; `known`: of those it was trained on."""
        if source == "conversation" and not known and rng.random() < _TO_SOMEBODY:
            # What one would ask of the assistant, asked of somebody in the room.
            intent = INTENTS[rng.choice(_ASKED_OF_PEOPLE)]
            said = self.fill(rng.choice(intent.plain + intent.free), "none", rng)
            return Said(f"{rng.choice(TO_PEOPLE)} {said.text}".strip(), "none", {})
        sentences = BACKGROUND[source]
        words = self.fill(rng.choice(sentences[::2] if known else sentences), "none", rng).text.split()
        if source != "noise" and rng.random() < 0.6:
            # The microphone opens in the middle of it.
            first = rng.randrange(len(words))
            words = words[first : first + rng.randint(2, 9)]
        return Said(" ".join(words), "none", {})

    def training_speech(self, seed: int, count: int) -> list[Said]:
        """What the assistant's makers trained it on: plain phrasings and some speech meant for nobody."""
        rng = random.Random(seed)
        names = list(INTENTS)
        made = []
        for number in range(count):
            if number % 12 == 0:
                source = rng.choice(list(BACKGROUND))
                made.append(self.background(source, rng, known=True))
                continue
            name = rng.choice(names)
            said = self.fill(rng.choice(INTENTS[name].plain), name, rng)
            opener = f"{rng.choice(openers_for(said.text)[-4:])} " if rng.random() < 0.25 else ""
            made.append(Said(opener + said.text, name, said.slots))
        return made

    def all_speech(self, seed: int, count: int) -> list[str]:
        """What is said in this world, of every kind: what the recogniser's language model has read."""
        rng = random.Random(seed)
        names = [name for name in INTENTS for _ in range(1 + round(2 * INTENTS[name].rate))]
        made = []
        for number in range(count):
            if number % 8 == 0:
                made.append(self.background(rng.choice(list(BACKGROUND)), rng).text)
                continue
            name = rng.choice(names)
            said = self.fill(rng.choice(INTENTS[name].plain + INTENTS[name].free), name, rng).text
            if number % 5 == 0:
                said = f"{rng.choice(OPENERS + CORRECTIONS)} {said}"
            if number % 7 == 0:
                said = f"{said} {rng.choice(CLOSERS + ASIDES)}"
            made.append(said)
        return made

    def words(self) -> list[str]:
        """Every word that can be said, in alphabetical order."""
        texts = [phrase for intent in INTENTS.values() for phrase in intent.plain + intent.free]
        texts += [value for values in VALUES.values() for value in values]
        texts += [name for entities in self.entities.values() for each in entities for name in (each.short, each.full)]
        texts += [phrase for phrases in BACKGROUND.values() for phrase in phrases]
        texts += [*OPENERS, *CLOSERS, *ASIDES, *CORRECTIONS, *TO_PEOPLE]
        return sorted({word for text in texts for word in SLOT.sub(" ", text).split()})
