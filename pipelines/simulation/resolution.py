"""Entity resolution: the words of a slot to something of the catalogue.

A name is looked up by spelling and by sound, so a misheard name can still be found. Namesakes are ranked by how
often they are meant, and by what else the request says: the room of a lamp, the artist of a song. The index is
now and then behind the catalogue: then the nearest other name is all that there is to find.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from pipelines.simulation.catalogue import Entity
from pipelines.simulation.world import World
from schemas.log import EntityResolution

DETAIL = {"song": "artist", "title": "media_type", "device": "room"}
"""The slot that tells namesakes of a kind apart, where a user says it."""
_SAME = {"film": "movie", "show": "series"}
_CANDIDATES = 4
_LEAST = 0.64
"""Similarity, 0 to 1, under which nothing is found."""
_SHARPNESS = 14.0
_POPULARITY = 0.8
_DETAIL_HIT = 4.0
_SCORE_NOISE = 0.05


class Resolved(NamedTuple):
    """What a slot's words can mean, best first."""

    slot: str
    candidates: tuple[tuple[Entity, float], ...]
    """With probabilities."""

    @property
    def margin(self) -> float:
        """How far the best is before the second, 0 to 1."""
        if len(self.candidates) < 2:
            return 1.0
        return self.candidates[0][1] - self.candidates[1][1]


class Resolver:
    """Looks slots up in the catalogue."""

    def __init__(self, world: World, sound_of: Callable[[str], str]) -> None:
        """`sound_of` gives the pronunciation of words, a character a phoneme."""
        self._entities = world.entities
        self._sound_of = sound_of
        self._names = {
            kind: [(each, _bare(each.short), _bare(each.full)) for each in entities]
            for kind, entities in world.entities.items()
        }
        self._similar = functools.lru_cache(30_000)(self._similarities)

    def resolve(self, slots: Mapping[str, str], missing: frozenset[str]) -> dict[str, Resolved]:
        """The meanings of every slot that is looked up; empty where nothing is like it.

        `missing`: ids of entities that the index does not have yet.
        """
        found = {}
        for slot, value in slots.items():
            if slot in self._entities and not (slot == "artist" and "song" in slots):
                detail = slots.get(DETAIL.get(slot, ""), "")
                found[slot] = Resolved(slot, self._rank(slot, value, detail, missing))
        return found

    def _rank(self, kind: str, value: str, detail: str, missing: frozenset[str]) -> tuple[tuple[Entity, float], ...]:
        detail = _SAME.get(detail, detail)
        ranked = []
        for entity, similarity in self._similar(kind, value):
            if entity.entity_id in missing:
                continue
            weight = _SHARPNESS * (similarity - 1.0) + _POPULARITY * math.log(entity.weight)
            if detail and entity.variant:
                weight += _DETAIL_HIT * (2.0 * fuzz.ratio(detail, entity.variant) / 100.0 - 1.0)
            ranked.append((weight, entity))
        ranked.sort(key=lambda each: (-each[0], each[1].entity_id))
        ranked = ranked[:_CANDIDATES]
        total = sum(math.exp(weight - ranked[0][0]) for weight, _ in ranked)
        return tuple((entity, math.exp(weight - ranked[0][0]) / total) for weight, entity in ranked)

    def _similarities(self, kind: str, value: str) -> list[tuple[Entity, float]]:
        bare = _bare(value)
        sound = self._sound_of(bare)
        found = []
        for entity, short, full in self._names[kind]:
            similarity = max(
                Levenshtein.normalized_similarity(bare, name)
                if not sound
                else 0.5 * Levenshtein.normalized_similarity(bare, name)
                + 0.5 * Levenshtein.normalized_similarity(sound, self._sound_of(name))
                for name in {short, full}
            )
            if similarity >= _LEAST:
                found.append((entity, similarity))
        return found


def logged(resolved: Sequence[Resolved], slots: Mapping[str, str], rng: random.Random) -> list[EntityResolution]:
    """The candidates as a log has them, with scores from 0 to 1."""
    entries = []
    for each in resolved:
        previous = 1.0
        for entity, probability in each.candidates:
            sure = 0.35 + 0.6 * math.sqrt(probability) + rng.gauss(0.0, _SCORE_NOISE)
            previous = round(min(previous, max(0.01, min(sure, 0.999))), 3)
            entries.append(
                EntityResolution(
                    slot=each.slot, value=slots[each.slot], entity_id=entity.entity_id, name=entity.full, score=previous
                )
            )
    return entries


def _bare(name: str) -> str:
    """A name without the small words that people leave out."""
    kept = [word for word in name.split() if word not in ("the", "a", "my", "on", "some", "in")]
    return " ".join(kept) or name
