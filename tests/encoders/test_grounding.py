"""How what an assistant made of a request fits it."""

from __future__ import annotations

import math

import pytest

from encoders.grounding import GROUNDING, Grounding, numbers
from schemas.log import EntityResolution, NluHypothesis, Response, Slot, Turn


def _of(*turns: Turn, index: int = 0) -> dict[str, float]:
    found = numbers([Grounding.of(turn) for turn in turns], index)
    return {name: value for name, value in zip(GROUNDING, found, strict=True) if not math.isnan(value)}


def _asked(text: str, intent: str = "directions", slot: str = "", **of_turn: object) -> Turn:
    slots = [Slot(name="place", value=slot)] if slot else []
    return Turn(text=text, nlu=[NluHypothesis(intent=intent, slots=slots)], **of_turn)


def test_of_a_text_alone_nothing_is_compared() -> None:
    assert _of(Turn(text="hi there")) == {}


def test_another_entity_than_was_asked_for_shares_fewer_words() -> None:
    bank, other = (
        _of(
            _asked(
                "drive to the bank on king street",
                slot="the bank on king street",
                entities=[EntityResolution(slot="place", value="the bank on king street", name=name)],
                response=Response(text=f"{name} is twelve minutes away."),
            )
        )
        for name in ("The Bank On King Street", "The Bank On Main Street")
    )
    assert bank["slot_in_entity"] == bank["entity_in_slot"] == bank["slots_in_response"] == 1
    assert other["slot_in_entity"] == other["entity_in_slot"] == other["slots_in_response"] == pytest.approx(0.8)
    assert bank["slot_values_like_response"] == 1 > other["slot_values_like_response"] > 0.8
    assert bank["text_in_slots"] == pytest.approx(5 / 7)


def test_of_several_slots_the_worst_counts() -> None:
    looked_up = [
        EntityResolution(slot="song", value="golden hour", name="Golden Hour"),
        EntityResolution(slot="artist", value="tim harris", name="Tom Harris"),
    ]
    assert _of(Turn(text="play it", entities=looked_up))["slot_in_entity"] == 0.5


def test_what_is_said_next_is_looked_for_among_the_other_entities() -> None:
    names = ("hallway light", None, "kitchen light")
    lights = [EntityResolution(slot="device", value="light", name=name) for name in names]
    row = _of(
        _asked("light on", slot="light", entities=lights, response=Response(text="Hallway or bedroom?")),
        Turn(text="kitchen"),
    )
    assert (row["next_in_entities"], row["next_in_other_entities"], row["next_in_response"]) == (0, 1, 0)
    assert row["entity_in_requests"] == 0.5


@pytest.mark.parametrize(("action", "like"), [("volumeUp", 1.0), ("volume_down", 0.7)])
def test_an_action_is_compared_with_what_is_waited_for(action: str, like: float) -> None:
    turns = [
        _asked("volume up", "VOLUME_UP", response=Response(action="confirm")),
        _asked("yes", "yes", response=Response(action=action)),
        _asked("no volume up", "volume_up"),
    ]
    row = _of(*turns, index=1)
    assert row["action_like_earlier_intent"] == row["action_like_next_intent"] == pytest.approx(like, abs=0.05)
    assert row["action_like_intent"] < 0.5
    assert row["action_like_previous_action"] < 0.5
