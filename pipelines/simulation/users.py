"""Users: what they want, how they say it, and how much they put up with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.simulation.action import CHOOSE, Outcome
from pipelines.simulation.assistant import DETAILS, canonical
from pipelines.simulation.catalogue import Entity
from pipelines.simulation.phrases import ASIDES, CLOSERS, CORRECTIONS, INTENTS, openers_for
from pipelines.simulation.resolution import DETAIL
from pipelines.simulation.world import SLOT, World

REQUEST, ANSWER, YES, NO, STOP, BACKGROUND = "request", "answer", "yes", "no", "stop", "background"

_CAN_BE_OUT = frozenset({"device", "item", "title", "song"})
_OUT = 0.04
"""Share of those that are out of reach, as the assistant says honestly."""
_ELLIPTIC = 0.1
_ELLIPTIC_BY_TELEPHONE = 0.6
"""Share of requests that leave something to be asked for, where that can be said. Callers wait to be asked."""


@dataclass(frozen=True)
class Utterance:
    """What was really said, and what it means."""

    kind: str
    text: str
    intent: str
    slots: Mapping[str, str] = field(default_factory=dict)
    source: str = "user"
    sound: str = ""
    """What the recogniser gets, where that is not the text."""


@dataclass
class Goal:
    """One thing that a user wants done."""

    goal_id: str
    intent: str
    slots: dict[str, str]
    """Slot → what the user calls it."""
    entities: dict[str, Entity]
    """Slot → what is meant."""
    args: dict[str, str]
    """Slot → id or canonical value: what the assistant must act on."""
    unavailable: bool
    tries: int = 0
    last_request: int | None = None
    """Turn in which it was last asked for and not reached."""
    last_words: Utterance | None = None
    said: set[str] = field(default_factory=set)
    """Slots that were said since the request began."""
    reached: bool = False


@dataclass(frozen=True)
class User:
    """Habits of one person."""

    user_id: str
    patience: int
    """Tries before giving up."""
    freedom: float
    """How far from what the assistant expects this person speaks, relative to others."""
    precision: float
    """Probability of telling namesakes apart unasked."""
    accent: float
    """How hard to recognise, relative to others."""
    politeness: float
    interrupts: float
    """Probability of speaking over a wrong response."""
    repeats: float
    """Probability of saying the same words again, rather than other words."""
    pace: float
    """Words a second."""
    habits: Mapping[str, float]
    """Weights of intents."""


def draw_user(rng: random.Random) -> User:
    """Somebody out of a hundred thousand."""
    number = rng.randrange(100_000)
    own = random.Random(number)
    favorites = {domain: own.paretovariate(1.5) for domain in sorted({each.domain for each in INTENTS.values()})}
    return User(
        user_id=f"user-{number:05d}",
        patience=own.choice((1, 2, 2, 3, 3, 4, 5)),
        freedom=own.uniform(0.3, 1.7),
        precision=own.uniform(0.05, 0.5),
        accent=own.gammavariate(1.5, 0.66),
        politeness=own.uniform(0.0, 0.4),
        interrupts=own.uniform(0.05, 0.6),
        repeats=own.uniform(0.1, 0.6),
        pace=own.uniform(2.0, 3.4),
        habits={name: intent.rate * favorites[intent.domain] for name, intent in INTENTS.items() if intent.rate},
    )


def draw_goal(world: World, user: User, goal_id: str, namesakes: float, rng: random.Random) -> Goal:
    """Something that the user wants. `namesakes`: how often it is the less popular one of several of a name."""
    intent = rng.choices(list(user.habits), list(user.habits.values()))[0]
    required = set(INTENTS[intent].required)
    template = rng.choice([each for each in INTENTS[intent].plain if required <= set(SLOT.findall(each))])
    goal = Goal(goal_id, intent, {}, {}, {}, unavailable=False)
    for slot in _core(template):
        if slot not in world.entities:
            goal.slots[slot] = world.sample_value(slot, rng)
            goal.args[slot] = canonical(goal.slots[slot])
            continue
        entities = [
            each for each in world.entities[slot] if intent != "set_color" or "li" in each.short or "la" in each.short
        ]
        entity = rng.choices(entities, [each.weight for each in entities])[0]
        rivals = sorted((each for each in entities if each.short == entity.short), key=lambda each: -each.weight)
        if len(rivals) > 1:
            entity = rng.choice(rivals[1:]) if rng.random() < namesakes else rivals[0]
        goal.slots[slot], goal.entities[slot], goal.args[slot] = entity.short, entity, entity.entity_id
        goal.unavailable |= slot in _CAN_BE_OUT and rng.random() < _OUT
        if slot in DETAIL and entity.variant:
            goal.slots[DETAIL[slot]] = entity.variant
    return goal


def request(goal: Goal, user: User, freedom: float, rng: random.Random, *, by_telephone: bool = False) -> Utterance:
    """Asks for a goal. Who has failed before speaks more plainly and more precisely."""
    again = goal.tries > 0
    free = rng.random() < freedom * user.freedom * (0.3 if again else 1.0)
    precise = rng.random() < (0.75 if again else user.precision)
    intent = INTENTS[goal.intent]
    core = _core_of(goal)
    fitting = [each for each in (intent.free if free else intent.plain) if set(_core(each)) == core]
    if not fitting:
        fitting = [each for each in intent.plain if set(_core(each)) == core]
    if intent.required and not again and rng.random() < (_ELLIPTIC_BY_TELEPHONE if by_telephone else _ELLIPTIC):
        # What is left out must be what the assistant will ask for.
        left_out = [(each, core - set(_core(each))) for each in intent.plain if set(_core(each)) <= core]
        fitting = [each for each, slots in left_out if slots and slots <= set(intent.required)] or fitting
    if again and goal.last_words is not None:
        fitting = [each for each in fitting if each not in goal.last_words.text] or fitting
    detailed = [each for each in fitting if len(SLOT.findall(each)) > len(_core(each))]
    if precise and detailed:
        fitting = detailed
    template = rng.choice(fitting)
    said = _values(goal, template, rng, full=precise and not detailed)
    text = template.format_map(said)
    if goal.tries and rng.random() < 0.25:
        text = f"{rng.choice(CORRECTIONS)} {text}"
    elif rng.random() < user.politeness:
        text = f"{rng.choice(openers_for(text))} {text}"
    if free and rng.random() < 0.3:
        text = f"{text} {rng.choice(ASIDES)}"
    elif rng.random() < 0.5 * user.politeness:
        text = f"{text} {rng.choice(CLOSERS)}"
    return Utterance(REQUEST, text, goal.intent, said)


def answer(goal: Goal, outcome: Outcome, freedom: float, rng: random.Random) -> Utterance | None:
    """Answers what the assistant asks for, or None where the goal has no such thing."""
    slot = outcome.asked
    if slot not in goal.slots:
        return None
    inform = INTENTS["inform"]
    names = {slot}
    detail = DETAIL.get(slot) if outcome.kind == CHOOSE else None
    if detail and detail in goal.slots and rng.random() < 0.7:
        names = {detail}
    pool = inform.free if rng.random() < freedom else inform.plain
    fitting = [each for each in pool if set(SLOT.findall(each)) == names]
    template = rng.choice(fitting or [f"{{{each}}}" for each in names])
    said = _values(goal, template, rng, full=outcome.kind == CHOOSE and slot != "song")
    return Utterance(ANSWER, template.format_map(said), "inform", said)


def short_reply(kind: str, freedom: float, rng: random.Random) -> Utterance:
    """Yes, no, or stop."""
    intent = INTENTS[kind]
    pool = intent.free if rng.random() < 0.5 * freedom else intent.plain
    return Utterance(kind, rng.choice(pool), kind)


def _core(template: str) -> list[str]:
    """The slots of a template that make the request what it is."""
    slots = SLOT.findall(template)
    return [each for each in slots if each not in DETAILS and not (each == "artist" and "song" in slots)]


def _core_of(goal: Goal) -> set[str]:
    return set(goal.args)


def _values(goal: Goal, template: str, rng: random.Random, *, full: bool) -> dict[str, str]:
    said = {}
    for slot in SLOT.findall(template):
        entity = goal.entities.get(slot)
        said[slot] = entity.full if entity and full and slot != "song" else goal.slots.get(slot, "")
        if said[slot] == "movie" and rng.random() < 0.5:
            said[slot] = "film"
    return said
