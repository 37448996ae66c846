"""How what was understood, resolved, done and said fits what was asked, word by word.

A wrong entity or a wrong action often differs from the right one in one word ("king street" and "main street";
`volume up` and `volume down`), which an encoder of word pieces hardly sees. Such inconsistencies foretell problems
(Walker et al. 2000, *Learning to predict problematic situations in a spoken dialogue system*).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz

from encoders.hypotheses import clip, response_text
from schemas.log import Turn
from schemas.ontology import words

GROUNDING = (
    "text_in_slots",
    "slots_in_response",
    "slot_values_like_response",
    "entity_in_slot",
    "slot_in_entity",
    "entity_in_response",
    "entity_in_requests",
    "next_in_entities",
    "next_in_other_entities",
    "next_in_response",
    "action_like_intent",
    "action_like_earlier_intent",
    "action_like_next_intent",
    "action_like_previous_action",
)
"""Each a share of words, or a similarity of texts, 0 to 1: of the words of the first, how many the second has."""

_EARLIER = 3
"""Turns before this one whose intents may still be waited for: an answer or a "yes" has another intent."""

_MISSING = math.nan
_WORDS = re.compile(r"\w+")


class Grounding(NamedTuple):
    """What is compared, of one turn. Texts are in lower case."""

    text: frozenset[str]
    """words of the request"""
    response: str
    said: frozenset[str]
    """words of the response"""
    values: list[str]
    """of the first hypothesis' slots"""
    intent: str
    """in words, empty where there is none"""
    action: str
    """in words, empty where there is none"""
    first: list[tuple[frozenset[str], frozenset[str]]]
    """of each slot that was looked up: the words of its value, and those of the entity that was taken"""
    others: list[frozenset[str]]
    """words of the entities that were not taken"""

    @classmethod
    def of(cls, turn: Turn) -> Grounding:
        """That of a validated turn."""
        top = turn.nlu[0] if turn.nlu else None
        response = response_text(turn)
        taken: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        others = []
        for each in turn.entities:
            name = _words(clip(each.name))
            if each.slot not in taken:
                taken[each.slot] = _words(clip(each.value)), name
            elif name:
                others.append(name)
        return cls(
            text=_words(clip(turn.text)),
            response=response,
            said=_words(response),
            values=[clip(slot.value) for slot in top.slots if slot.value] if top else [],
            intent=clip(words(top.intent)) if top and top.intent else "",
            action=clip(words(turn.response.action)) if turn.response and turn.response.action else "",
            first=[each for each in taken.values() if all(each)],
            others=others,
        )


def numbers(turns: Sequence[Grounding], index: int) -> list[float]:
    """Those of `GROUNDING`, of one turn of a dialogue; NaN where there is nothing to compare."""
    here = turns[index]
    previous = turns[index - 1] if index else None
    following = turns[index + 1].text if index + 1 < len(turns) else frozenset()
    values = frozenset().union(*map(_words, here.values))
    names = frozenset().union(*(name for _, name in here.first))
    asked = here.text | previous.text if previous else here.text
    earlier = [each.intent for each in turns[max(0, index - _EARLIER) : index]]
    return [
        _share(here.text, values) if here.values else _MISSING,
        _share(values, here.said),
        min((fuzz.partial_ratio(value, here.response) / 100 for value in here.values), default=_MISSING)
        if here.response
        else _MISSING,
        min((_share(name, value) for value, name in here.first), default=_MISSING),
        min((_share(value, name) for value, name in here.first), default=_MISSING),
        _share(names, here.said),
        _share(names, asked),
        _share(following, names),
        max((_share(following, each) for each in here.others), default=_MISSING),
        _share(following, here.said),
        _alike(here.action, [here.intent]),
        _alike(here.action, earlier),
        _alike(here.action, [turns[index + 1].intent] if following else []),
        _alike(here.action, [previous.action] if previous else []),
    ]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(text))


def _share(these: frozenset[str], those: frozenset[str]) -> float:
    return len(these & those) / len(these) if these and those else _MISSING


def _alike(name: str, others: Iterable[str]) -> float:
    return max((fuzz.token_sort_ratio(name, each) / 100 for each in others if name and each), default=_MISSING)
