"""Whether the assistant understood what was meant, by the model's own intents and slots, and what that is asked of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from labelers.base import Encoded
from labelers.failure_point import POINTS
from labelers.model import Model
from labelers.understanding import Understanding
from schemas.log import (
    AsrHypothesis,
    Dialogue,
    EntityResolution,
    ExplicitFeedback,
    FailurePoint,
    NluHypothesis,
    Response,
    Slot,
    Turn,
    validate,
)

Encode = Callable[[Sequence[Dialogue]], Encoded]

ADELE = Slot(name="artist", value="adele")


def _alone(intent: str | None = "play_music", *slots: Slot, **more: Any) -> Dialogue:
    turn = Turn(asr=[AsrHypothesis(text="play adele")], nlu=[NluHypothesis(intent=intent, slots=list(slots))])
    for name, value in more.items():
        setattr(turn, name, value)
    return validate(Dialogue(dialogue_id="a", turns=[turn]))


@pytest.fixture
def understood(model: Model, encode: Encode, fixed: type[torch.nn.Module]) -> Callable[[Dialogue], float]:
    # What the intent is does not depend on what it was understood as, which is a feature of the turn.
    model.intent.turn = fixed([[0.1 * column for column in range(model.intent.name.out_features)]])
    model.slots.tags.bias.data = torch.tensor([100.0, 0.0, 0.0])
    understanding = Understanding(model.intent, model.slots)

    def understood(dialogue: Dialogue) -> float:
        with torch.no_grad():
            (probability,) = understanding(encode([dialogue])).tolist()
        return float(probability)

    return understood


def test_an_intent_is_as_likely_as_the_model_has_it(understood: Callable[[Dialogue], float]) -> None:
    # The model knows these two.
    play, stop = (understood(_alone(intent)) for intent in ("play_music", "stop_music"))
    assert 0 < play < 1
    assert play + stop == pytest.approx(1)
    assert understood(_alone(None)) == 1, "there is no intent that could be wrong"


def test_all_slots_must_be_meant(
    understood: Callable[[Dialogue], float], model: Model, fixed: type[torch.nn.Module]
) -> None:
    without = understood(_alone())
    model.slots.accept = fixed([[0.0, 2.0], [0.0, 1.0]])
    sure = torch.sigmoid(torch.tensor([2.0, 1.0])).tolist()
    song = Slot(name="song", value="hello")
    assert understood(_alone("play_music", ADELE, song)) == pytest.approx(without * sure[0] * sure[1])


def test_a_slot_that_was_not_understood_speaks_against_it(
    understood: Callable[[Dialogue], float], model: Model, encode: Encode, fixed: type[torch.nn.Module]
) -> None:
    without = understood(_alone())
    model.slots.tags = fixed([[9.0, 0.0, 0.0]] * 4 + [[0.0, 9.0, 0.0]] + [[0.0, 0.0, 9.0]] * 4)
    with torch.no_grad():
        encoded = encode([_alone()])
        (label,) = model.slots.decode(encoded, model.intent.decode(encoded))
    (adele,) = label.slots
    assert adele.value == "adele"
    assert understood(_alone()) == pytest.approx(without * (1 - adele.confidence))


def test_what_cannot_be_judged_has_no_probability(understood: Callable[[Dialogue], float]) -> None:
    assert understood(_alone(nlu=[])) != understood(_alone(nlu=[]))
    assert understood(_alone("book_hotel")) != understood(_alone("book_hotel")), "no intent of this ontology"


@pytest.mark.parametrize("probability", [0.2, torch.nan])
def test_it_weighs_as_much_as_the_experts_together(probability: float, model: Model, encode: Encode) -> None:
    encoded = encode([_alone()])
    model.failure_point._understanding = lambda *_: torch.tensor([torch.nan])
    (experts,) = model.failure_point.decode(encoded)
    model.failure_point._understanding = lambda *_: torch.tensor([probability])
    (label,) = model.failure_point.decode(encoded)
    correct = experts.probabilities[FailurePoint.CORRECT]
    expected = correct if probability != probability else (correct + probability) / 2
    assert label.probabilities[FailurePoint.CORRECT] == pytest.approx(expected)
    assert sum(label.probabilities[point] for point in POINTS) == pytest.approx(1)


@pytest.mark.parametrize(
    "witness",
    [
        {"response": Response(text="Playing.")},
        {"asr": [AsrHypothesis(text="play adele", score=0.9)]},
        {"asr": [AsrHypothesis(text="play adele"), AsrHypothesis(text="play a dell")]},
        {"nlu": [NluHypothesis(intent="play_music", score=0.9)]},
        {"nlu": [NluHypothesis(intent="play_music"), NluHypothesis(intent="stop_music")]},
        {"entities": [EntityResolution(slot="artist", name="Adele")]},
        {"wake_score": 0.5},
        {"barge_in": True},
        {"feedback": ExplicitFeedback.POSITIVE},
        {},
    ],
)
def test_it_is_asked_only_where_there_is_nothing_else_to_go_by(
    witness: dict[str, Any], model: Model, encode: Encode
) -> None:
    asked: list[Encoded] = []

    def understanding(encoded: Encoded, _: object) -> torch.Tensor:
        asked.append(encoded)
        return torch.tensor([0.5])

    model.failure_point._understanding = understanding
    model.failure_point.decode(encode([_alone(**witness)]))
    assert bool(asked) == (not witness)


def test_a_turn_among_others_has_these_to_go_by(model: Model, encode: Encode) -> None:
    model.failure_point._understanding = lambda *_: pytest.fail("asked of a dialogue of two turns")
    dialogue = _alone()
    dialogue.turns.append(dialogue.turns[0])
    model.failure_point.decode(encode([dialogue]))
