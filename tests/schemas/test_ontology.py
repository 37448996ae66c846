"""Ontologies: read in SGD's schema form, or from what the logs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.log import Dialogue, NluHypothesis, Slot, Turn, TurnAnnotation
from schemas.ontology import NO_INTENT, Ontology, SlotType, infer, merge, words

HOTELS = {"service_name": "Hotels", "intents": [{"name": "Book"}, {"name": "Find"}], "slots": [{"name": "city"}]}
BUSES = {"service_name": "Buses", "intents": [{"name": "Book"}], "slots": [{"name": "date"}]}


def read(folder: Path, *services: dict[str, object]) -> Ontology:
    path = folder / "schema.json"
    path.write_text(json.dumps(services))
    return Ontology.read(path)


def names(ontology: Ontology) -> list[str]:
    return [intent.name for intent in ontology.intents]


def test_a_schema_also_has_the_intent_of_a_turn_that_asks_for_nothing(tmp_path: Path) -> None:
    assert names(read(tmp_path, HOTELS, BUSES)) == ["Book", "Find", NO_INTENT]


@pytest.mark.parametrize(
    ("service", "wanted"),
    [
        ({"service_name": "a", "intents": [{"name": NO_INTENT}]}, [NO_INTENT]),
        ({"service_name": "a", "intents": [{"name": "none"}]}, ["none"]),
        ({"service_name": "a", "intents": [{"name": "Null"}]}, ["Null"]),
        ({"service_name": "a"}, []),
    ],
)
def test_nothing_is_added_to_a_schema_that_has_it_or_has_no_intents(
    tmp_path: Path, service: dict[str, object], wanted: list[str]
) -> None:
    assert names(read(tmp_path, service)) == wanted


def test_the_slots_of_an_intent_are_those_of_all_its_services(tmp_path: Path) -> None:
    assert read(tmp_path, HOTELS, BUSES).slots_by_intent == {
        "Book": {"city", "date"},
        "Find": {"city"},
        NO_INTENT: frozenset(),
    }


def test_a_slot_is_closed_where_all_its_services_list_its_values(tmp_path: Path) -> None:
    closed = {"name": "class", "is_categorical": True, "possible_values": ["First"]}
    first, second = ({"service_name": name, "slots": [closed, {**closed, "name": "size"}]} for name in "ab")
    second["slots"] = [{**closed, "possible_values": ["Second"]}, {"name": "size", "possible_values": ["6"]}]
    assert read(tmp_path, first, second).closed_slots == {"class": {"first", "second"}}


def test_a_categorical_slot_of_which_no_values_are_listed_is_open(tmp_path: Path) -> None:
    unlisted = {"name": "class", "is_categorical": True}
    listed = {**unlisted, "possible_values": ["First"]}
    first, second = (read(tmp_path, {"service_name": "a", "slots": [slot]}) for slot in (unlisted, listed))
    assert first.closed_slots == {}
    assert merge([first, second]).closed_slots == merge([second, first]).closed_slots == {}


def test_merged_services_have_all_values_of_their_slots(tmp_path: Path) -> None:
    def shops(price: dict[str, object], size: dict[str, object]) -> Ontology:
        slots = [{"name": "size", "possible_values": ["6"], **size}, {"name": "price", **price}]
        return read(tmp_path, {"service_name": "Shops", "slots": slots})

    first = shops({"is_categorical": True, "possible_values": ["cheap"]}, {"is_categorical": True})
    second = shops({"is_categorical": True, "possible_values": ["dear", "cheap"], "description": "how dear"}, {})
    assert merge([first, second]).closed_slots == {"price": {"cheap", "dear"}}
    [service] = merge([first, second]).services
    assert service.slots == (
        SlotType("price", "how dear", is_categorical=True, possible_values=("cheap", "dear")),
        SlotType("size", possible_values=("6",)),
    )
    assert merge([first]).closed_slots == first.closed_slots


def test_of_some_services_there_is_what_they_have_and_the_intent_of_none(tmp_path: Path) -> None:
    ontology = read(tmp_path, HOTELS, {"service_name": "Trains", "intents": [{"name": "Ride"}]})
    assert names(ontology.reachable(["Trains", "a service of another assistant"])) == [NO_INTENT, "Ride"]
    assert ontology.reachable(["a service of another assistant"]) == ontology


def test_an_annotated_domain_counts_more_than_the_one_that_was_understood() -> None:
    annotation = TurnAnnotation(domain="Hotels", intent="Book", slots=[Slot(name="city", value="Rome")])
    turn = Turn(text="a room in Rome", nlu=[NluHypothesis(domain="Buses", intent="Find")], annotation=annotation)
    inferred = infer([Dialogue(dialogue_id="d", turns=[turn])], annotations=True)
    assert {service.service_name: [each.name for each in service.intents] for service in inferred.services} == {
        "": [NO_INTENT],
        "Buses": ["Find"],
        "Hotels": ["Book"],
    }
    assert inferred.slots_by_intent == {NO_INTENT: frozenset(), "Find": frozenset(), "Book": {"city"}}


@pytest.mark.parametrize(
    ("heard", "inferred"),
    [(["Find"], ["Find", NO_INTENT]), (["Find", "null"], ["Find", "null"]), (["None"], ["None"]), ([None], [])],
)
def test_that_nothing_is_asked_for_is_an_intent_of_logs_with_intents(
    heard: list[str | None], inferred: list[str]
) -> None:
    turns = [Turn(text="thanks", nlu=[NluHypothesis(intent=each)]) for each in heard]
    assert names(infer([Dialogue(dialogue_id="d", turns=turns)])) == inferred


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("find_restaurants", "find restaurants"),
        ("FindRestaurants", "find restaurants"),
        ("getWeather", "get weather"),
        ("HTTPServer2", "http server 2"),
        ("x-y.Z", "x y z"),
        ("---", "---"),
        ("café_type", "café type"),
        ("Größe", "größe"),
        ("GRÖSSE_maxWert", "grösse max wert"),
        ("ÉcoleNom", "école nom"),
        ("Найти_отель", "найти отель"),
    ],
)
def test_a_name_is_read_as_its_words(name: str, wanted: str) -> None:
    assert words(name) == wanted
