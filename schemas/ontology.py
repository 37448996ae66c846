"""What an assistant can be asked: its intents and slots, in the form of the Schema-Guided Dialogue schema.

Form: Rastogi et al., *Towards Scalable Multi-domain Conversational Agents: The Schema-Guided Dialogue Dataset*
(AAAI 2020): a list of services, each `{service_name, description, slots, intents}`. Only names are required. That no
intent is active is `NONE` there, which no service lists: reading a file adds it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from schemas.log import Dialogue

Named = TypeVar("Named", "Intent", "SlotType")

NO_INTENT = "NONE"
"""SGD's name for the intent of a turn that asks for nothing."""


class OntologyError(ValueError):
    """The file is not an ontology; the message says where."""


class Intent(Struct, frozen=True, omit_defaults=True):
    """Something that can be asked for."""

    name: str
    description: str = ""


class SlotType(Struct, frozen=True, omit_defaults=True):
    """A named kind of value."""

    name: str
    description: str = ""
    is_categorical: bool = False
    """`possible_values` are all that there are"""
    possible_values: tuple[str, ...] = ()

    @property
    def is_closed(self) -> bool:
        """There are no values but the possible ones. Where none is listed, they are not known."""
        return self.is_categorical and bool(self.possible_values)


class Service(Struct, frozen=True, omit_defaults=True):
    """Intents and slots that belong together."""

    service_name: str
    description: str = ""
    intents: tuple[Intent, ...] = ()
    slots: tuple[SlotType, ...] = ()


_NOTHING = Intent(NO_INTENT, "the user asks for nothing, says thank you or good bye")
_NAMES_OF_NOTHING = frozenset({NO_INTENT.casefold(), "null"})
"""What assistants call that intent, in lower case."""


class Ontology(Struct, frozen=True):
    """All services of one assistant. An empty one means: nothing is known."""

    services: tuple[Service, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Ontology:
        """The ontology in a JSON file of SGD's schema form, and `NO_INTENT` where there are intents and none of them
        says that nothing is asked for. Raises `OntologyError`, `OSError`."""
        try:
            ontology = cls(services=msgspec.json.decode(path.read_bytes(), type=tuple[Service, ...]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise OntologyError(f"{path} is not an ontology in SGD's schema form: {error}") from None
        if _lacks_no_intent(intent.name for intent in ontology.intents):
            return cls(services=(*ontology.services, Service("", intents=(_NOTHING,))))
        return ontology

    @property
    def intents(self) -> list[Intent]:
        """Every intent once, by name, in alphabetical order."""
        return _by_name(intent for service in self.services for intent in service.intents)

    @property
    def slots(self) -> list[SlotType]:
        """Every slot once, by name, in alphabetical order."""
        return _by_name(slot for service in self.services for slot in service.slots)

    def reachable(self, services: Iterable[str]) -> Ontology:
        """Only those services, and what belongs to none; all of it where none of them is known."""
        names = set(services)
        if not any(service.service_name in names for service in self.services):
            return self
        return Ontology(tuple(each for each in self.services if each.service_name in names or not each.service_name))

    @property
    def closed_slots(self) -> dict[str, frozenset[str]]:
        """Of every slot that has a closed list of values in each service that has the slot: all values, in lower
        case."""
        values: dict[str, set[str]] = {}
        is_open = set()
        for slot in (slot for service in self.services for slot in service.slots):
            if not slot.is_closed:
                is_open.add(slot.name)
            values.setdefault(slot.name, set()).update(value.lower() for value in slot.possible_values)
        return {name: frozenset(of) for name, of in values.items() if name not in is_open}

    @property
    def slots_by_intent(self) -> dict[str, frozenset[str]]:
        """For every intent the names of all slots of the services that have it."""
        found: dict[str, frozenset[str]] = {}
        for service in self.services:
            slots = frozenset(slot.name for slot in service.slots)
            for intent in service.intents:
                found[intent.name] = found[intent.name] | slots if intent.name in found else slots
        return found


NAME_LIMIT = 200
"""Characters of a name in a log at most: a longer one is no name, and would stand in every row that it labels."""


def infer(dialogues: Iterable[Dialogue], *, annotations: bool = False) -> Ontology:
    """The ontology that the logs speak of: every name in an NLU hypothesis (and, if asked, in an annotation), and
    `NO_INTENT` where there are intents and none of them says that nothing is asked for.

    One service a domain, in alphabetical order, so that the same logs give the same ontology.
    """
    intents: dict[str, set[str]] = {}
    slots: dict[str, set[str]] = {}
    for dialogue in dialogues:
        for turn in dialogue.turns:
            heard = [(each.domain or "", each.intent, each.slots) for each in turn.nlu]
            if annotations and turn.annotation:
                domain = turn.annotation.domain or next((each.domain for each in turn.nlu if each.domain), "")
                heard.append((domain, turn.annotation.intent, turn.annotation.slots or []))
            for service, intent, slot_list in heard:
                if intent and len(intent) <= NAME_LIMIT:
                    intents.setdefault(service, set()).add(intent)
                slots.setdefault(service, set()).update(slot.name for slot in slot_list if len(slot.name) <= NAME_LIMIT)
    if _lacks_no_intent(name for names in intents.values() for name in names):
        intents.setdefault("", set()).add(NO_INTENT)
    return Ontology(
        services=tuple(
            Service(
                service_name=name,
                intents=tuple(
                    _NOTHING if each == NO_INTENT else Intent(each) for each in sorted(intents.get(name, ()))
                ),
                slots=tuple(SlotType(each) for each in sorted(slots.get(name, ()))),
            )
            for name in sorted(intents.keys() | slots.keys())
            if intents.get(name) or slots.get(name)
        )
    )


def _lacks_no_intent(intents: Iterable[str]) -> bool:
    """Whether there are intents, and none of them says that nothing is asked for."""
    names = {name.casefold() for name in intents}
    return bool(names) and names.isdisjoint(_NAMES_OF_NOTHING)


def merge(ontologies: Iterable[Ontology]) -> Ontology:
    """All services of all of them; services of one name are joined, and so are the values of their slots."""
    services: dict[str, Service] = {}
    for ontology in ontologies:
        for new in ontology.services:
            old = services.get(new.service_name, Service(new.service_name))
            services[new.service_name] = Service(
                service_name=new.service_name,
                description=old.description or new.description,
                intents=tuple(_by_name((*old.intents, *new.intents))),
                slots=_joined((*old.slots, *new.slots)),
            )
    return Ontology(services=tuple(services[name] for name in sorted(services)))


def _joined(slots: Iterable[SlotType]) -> tuple[SlotType, ...]:
    """Every slot once, with all its values; they are all that there are only where each says so of its own."""
    found: dict[str, SlotType] = {}
    for slot in slots:
        old = found.get(slot.name, slot)
        found[slot.name] = SlotType(
            name=slot.name,
            description=old.description or slot.description,
            is_categorical=old.is_closed and slot.is_closed,
            possible_values=tuple(dict.fromkeys((*old.possible_values, *slot.possible_values))),
        )
    return tuple(found[name] for name in sorted(found))


_UPPER = "A-ZÀ-ÖØ-Þ"
"""The capitals of ASCII and Latin-1: `re` knows no others. Any other letter goes on with the word that it is in."""
_WORD = re.compile(rf"[{_UPPER}]+(?![^\W\d_{_UPPER}])|[{_UPPER}]?[^\W\d_{_UPPER}]+|\d+")


@functools.lru_cache(maxsize=16_384)
def words(name: str) -> str:
    """A name as words in lower case: `FindRestaurants` and `find_restaurants` are `find restaurants`."""
    return " ".join(_WORD.findall(name)).lower() or name


def _by_name(entries: Iterable[Named]) -> list[Named]:
    found: dict[str, Named] = {}
    for entry in entries:
        if entry.name not in found or (entry.description and not found[entry.name].description):
            found[entry.name] = entry
    return [found[name] for name in sorted(found)]
