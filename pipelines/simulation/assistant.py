"""The assistant: its stages in a row, and what it remembers of the dialogue.

Each stage works on what the one before it gave. `respond` takes the true output of any stage instead, which is
how the truth about a failure is found (`truth`).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import NamedTuple

from rapidfuzz import fuzz

from pipelines.simulation import action
from pipelines.simulation.action import Fault, Outcome
from pipelines.simulation.asr import Recogniser
from pipelines.simulation.catalogue import Entity
from pipelines.simulation.nlu import NONE, Understander
from pipelines.simulation.phrases import INTENTS
from pipelines.simulation.resolution import Resolved, Resolver
from pipelines.simulation.world import World
from schemas.log import NluHypothesis

_IGNORED = 0.6
"""NLU score from which what is not meant for the assistant is not answered."""
_UNDERSTOOD = 0.3
"""NLU score under which the assistant says that it did not understand."""
_SURE = 0.45
"""NLU score under which it asks whether it understood."""
_HEARD = -1.6
"""ASR log-probability under which it asks, too."""
_SURE_BY_TELEPHONE = 0.6
_HEARD_BY_TELEPHONE = -1.2
"""The same of a telephone line, where less is certain."""
_CLOSE = 0.12
"""Margin of entity resolution under which it asks which one."""
_NAMED = 70.0
"""Similarity, per cent, from which an answer names an option."""
_ALWAYS_CONFIRMED = frozenset({"order_product"})
_SMALL_WORDS = frozenset({"a", "an", "the", "my", "on", "at", "for", "in", "some", "is", "to", "say"})
DETAILS = frozenset({"room", "media_type"})
"""Slots that only tell namesakes apart."""


class Pending(NamedTuple):
    """A question that waits for its answer."""

    kind: str
    intent: str
    slots: Mapping[str, str]
    asked: str = ""
    options: tuple[Entity, ...] = ()


class Luck(NamedTuple):
    """What chance decides in a turn, the same in every run of it."""

    fault: Fault | None
    missing: frozenset[str]
    """Entities that the index does not have."""
    unavailable: bool
    pick: float


class Run(NamedTuple):
    """What every stage after recognition gave."""

    nlu: tuple[NluHypothesis, ...]
    slots: Mapping[str, str]
    resolved: tuple[Resolved, ...]
    outcome: Outcome
    pending: Pending | None


class Assistant:
    """All stages of one assistant, without any state of a dialogue."""

    by_telephone = False

    def __init__(self, world: World) -> None:
        self.world = world
        self.entity_ids = [each.entity_id for entities in world.entities.values() for each in entities]
        self.recogniser = Recogniser(world)
        self.understander = Understander(world)
        self.resolver = Resolver(world, self.recogniser.sound_of)
        self._answers = functools.cache(self._words_of_answers)

    @functools.cached_property
    def on_telephone(self) -> Assistant:
        """The same assistant as callers have it: it cannot keep silent, and confirms sooner."""
        called = copy.copy(self)
        called.by_telephone = True
        return called

    def expected(self, pending: Pending | None) -> frozenset[str]:
        """The words that an answer to what waits for one may have."""
        if pending is None:
            return frozenset()
        if pending.options:
            return frozenset(word for each in pending.options for word in each.full.split()) - _SMALL_WORDS
        return self._answers(pending.asked)

    def _words_of_answers(self, asked: str) -> frozenset[str]:
        answers = self.world.values(asked) if asked else INTENTS["yes"].plain + INTENTS["no"].plain
        return frozenset(word for each in answers for word in each.split()) - _SMALL_WORDS

    def respond(
        self,
        text: str,
        heard: float,
        pending: Pending | None,
        luck: Luck,
        *,
        nlu: tuple[NluHypothesis, ...] | None = None,
        meant: Mapping[str, Entity] | None = None,
    ) -> Run:
        """Understands and acts on `text`, recognised with the score `heard`.

        `nlu` and `meant` are the true frame and entities, where these stages are not to be run.
        """
        found = self.understander.parse(text, pending.kind if pending else "") if nlu is None else nlu
        top = found[0]
        assert top.intent is not None and top.score is not None
        slots = {slot.name: slot.value for slot in top.slots}
        intent, confirmed, chosen = top.intent, False, None
        if intent == NONE and top.score >= _IGNORED:
            silent = action.again(luck.pick) if self.by_telephone else Outcome(action.IGNORE, NONE, {}, "", "ignored")
            return Run(found, {}, (), silent, pending)
        if intent == NONE or top.score < _UNDERSTOOD:
            return Run(found, {}, (), self._lost(luck), pending)
        if intent == "stop":
            return Run(found, {}, (), Outcome(action.STOP, "stop", {}, "Okay.", "success"), None)
        if intent == "unsupported":
            return Run(found, {}, (), action.refuse(), None)
        if intent in ("yes", "no", "inform"):
            if pending is None:
                return Run(found, {}, (), self._lost(luck), None)
            if self.by_telephone and intent == "inform" and not slots and not self.expected(pending) & {*text.split()}:
                # Nothing that was asked for: noise is heard as small words.
                return Run(found, {}, (), self._lost(luck), pending)
            if intent == "no":
                return Run(found, {}, (), Outcome(action.DISMISS, "no", {}, "Okay, never mind.", "success"), None)
            if intent == "yes":
                confirmed = pending.kind == action.CONFIRM
                chosen = pending.options[0] if pending.options else None
            if pending.kind == action.CHOOSE and intent == "inform":
                chosen = _chosen(" ".join(slots.values()) or text, pending.options)
            answered = dict(slots)
            if pending.kind == action.ELICIT and intent == "inform" and pending.asked not in slots:
                # The answer to a question for a slot is that slot, whatever the tagger calls it.
                answered = {pending.asked: next(iter(slots.values()), text)}
            intent, slots = pending.intent, {**pending.slots, **answered}
        missing = [slot for slot in INTENTS[intent].required if slot not in slots]
        if missing:
            asked = Pending(action.ELICIT, intent, slots, missing[0])
            return Run(found, slots, (), action.ask_for(intent, missing[0]), asked)
        return self._act(found, intent, slots, luck, heard, meant or {}, confirmed=confirmed, chosen=chosen)

    def _lost(self, luck: Luck) -> Outcome:
        return action.again(luck.pick) if self.by_telephone else action.lost(luck.pick)

    def _act(
        self,
        found: tuple[NluHypothesis, ...],
        intent: str,
        slots: dict[str, str],
        luck: Luck,
        heard: float,
        meant: Mapping[str, Entity],
        *,
        confirmed: bool,
        chosen: Entity | None,
    ) -> Run:
        resolved = self.resolver.resolve(slots, luck.missing)
        for slot, entity in {**meant, **({chosen.kind: chosen} if chosen else {})}.items():
            if slot in resolved:
                resolved[slot] = Resolved(slot, ((entity, 1.0),))
        ranked = tuple(resolved.values())
        args: dict[str, str] = {}
        names: dict[str, str] = {}
        entities: dict[str, Entity] = {}
        others: dict[str, Entity] = {}
        for slot, value in slots.items():
            if slot not in resolved:
                if slot not in DETAILS and not (slot == "artist" and "song" in slots):
                    args[slot], names[slot] = canonical(value), value
                continue
            candidates = resolved[slot].candidates
            if not candidates:
                return Run(found, slots, ranked, action.not_found(intent, value), None)
            entities[slot] = candidates[0][0]
            args[slot], names[slot] = entities[slot].entity_id, entities[slot].name
            if len(candidates) > 1:
                others[slot] = candidates[1][0]
        close = next((each for each in ranked if each.margin < _CLOSE and not confirmed), None)
        if close is not None:
            options = (close.candidates[0][0], close.candidates[1][0])
            waiting = Pending(action.CHOOSE, intent, slots, close.slot, options)
            return Run(found, slots, ranked, action.ask_which(intent, close.slot, *options), waiting)
        top = found[0].score or 0.0
        sure, clear = (_SURE_BY_TELEPHONE, _HEARD_BY_TELEPHONE) if self.by_telephone else (_SURE, _HEARD)
        unsure = top < sure or heard < clear or (intent in _ALWAYS_CONFIRMED and chosen is None)
        if unsure and not confirmed and chosen is None:
            waiting = Pending(action.CONFIRM, intent, slots)
            return Run(found, slots, ranked, action.ask_whether(intent, args, names), waiting)
        if luck.unavailable:
            outcome = action.unavailable(intent, args, names)
        else:
            outcome = action.execute(intent, args, names, entities, others, luck.fault, luck.pick)
        return Run(found, slots, ranked, outcome, None)


def _chosen(said: str, options: tuple[Entity, ...]) -> Entity | None:
    """The option that the answer names, or none where it names something else."""
    matches = [max(fuzz.ratio(said, each.full), fuzz.ratio(said, each.variant)) for each in options]
    best = max(range(len(options)), key=matches.__getitem__)
    return options[best] if matches[best] >= _NAMED else None


def canonical(value: str) -> str:
    """A value in the form in which two ways to say it are one: no small words, no plural."""
    return " ".join(word.removesuffix("s") for word in value.split() if word not in _SMALL_WORDS)
