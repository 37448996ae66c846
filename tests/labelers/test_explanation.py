"""Why a turn has its failure point: what is named is there, and hiding it changes the label by what is said."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import msgspec
import pytest

from labelers.explanation import REACH, Evidence, explain, explain_all
from labelers.model import Model
from schemas.log import AsrHypothesis, Dialogue, NluHypothesis, Response, Slot, Turn, validate


def turn(text: str, other: str, food: str, response: str) -> Turn:
    return Turn(
        asr=[AsrHypothesis(text=text, score=-0.7), AsrHypothesis(text=other, score=-0.9)],
        nlu=[NluHypothesis(domain="restaurant", intent="inform", slots=[Slot(name="food", value=food)], score=0.6)],
        response=Response(text=response),
    )


@pytest.fixture(scope="module")
def builtin() -> Model:
    return Model.load(Path(str(importlib.resources.files("labelers"))) / "builtin")


@pytest.fixture
def repeated() -> Dialogue:
    """The assistant hears "tie"; the user says "thai food" again, and a third turn is about something else."""
    return validate(
        Dialogue(
            dialogue_id="d",
            turns=[
                turn("tie food", "thai food", "thai", "There is no restaurant serving tie food."),
                turn("thai food", "tie food", "thai", "Bangkok City serves thai food."),
                turn("thank you good bye", "thank you", "thai", "Good bye."),
            ],
        )
    )


def changes(model: Model, dialogue: Dialogue, index: int) -> dict[tuple[Evidence, int], float]:
    return {(each.evidence, each.turn_index): each.defect for each in explain(model, dialogue, index).influences}


def test_that_the_user_repeats_speaks_for_a_defect(builtin: Model, repeated: Dialogue) -> None:
    assert changes(builtin, repeated, 0)[Evidence.TURN, 1] > 0.05


def test_what_is_explained_is_the_label_as_it_is_published(model: Model, repeated: Dialogue) -> None:
    [labels] = model.label([repeated])
    told = explain(model, repeated, 1)
    assert told.failure_point == labels.turns[1].failure_point
    assert told.defect_probability == pytest.approx(labels.turns[1].defect_probability, abs=1e-5)


def test_a_change_is_that_of_the_label_of_a_log_without_the_evidence(model: Model, repeated: Dialogue) -> None:
    without = msgspec.structs.replace(repeated, turns=[repeated.turns[0], repeated.turns[2]])
    before, after = (model.label([each])[0].turns for each in (repeated, without))
    lost = before[2].defect_probability - after[1].defect_probability
    assert changes(model, repeated, 2)[Evidence.TURN, 1] == pytest.approx(lost, abs=1e-5)


def test_without_its_words_it_is_as_if_nothing_had_been_recognised(model: Model, repeated: Dialogue) -> None:
    first, *others = repeated.turns
    unheard = msgspec.structs.replace(first, text="", asr=[AsrHypothesis(text="", score=-0.7), first.asr[1]])
    before, after = (
        model.label([each])[0].turns[0].defect_probability
        for each in (repeated, msgspec.structs.replace(repeated, turns=[unheard, *others]))
    )
    assert changes(model, repeated, 0)[Evidence.WORDS, 0] == pytest.approx(before - after, abs=1e-6)


def test_only_what_the_log_has_is_named_the_largest_change_first(model: Model, repeated: Dialogue) -> None:
    told = explain(model, repeated, 0)
    assert {each.evidence for each in told.influences} == {
        Evidence.WORDS,
        Evidence.OTHER_HYPOTHESES,
        Evidence.ASR_SCORES,
        Evidence.NLU,
        Evidence.NLU_SCORES,
        Evidence.RESPONSE,
        Evidence.TURN,
    }
    sizes = [abs(each.defect) for each in told.influences]
    assert sizes == sorted(sizes, reverse=True)


def test_turns_within_reach_are_named(model: Model) -> None:
    long = validate(Dialogue(dialogue_id="d", turns=[Turn(text=f"turn {number}") for number in range(20)]))
    named = {each.turn_index for each in explain(model, long, 10).influences if each.evidence is Evidence.TURN}
    assert named == {*range(10 - REACH, 10), *range(11, 11 + REACH)}


def test_together_is_the_same_as_one_by_one(model: Model, repeated: Dialogue) -> None:
    other = validate(Dialogue(dialogue_id="e", turns=[Turn(text="stop")]))
    together = explain_all(model, [(repeated, 2), (other, 0), (repeated, 0)])
    alone = [explain(model, repeated, 2), explain(model, other, 0), explain(model, repeated, 0)]
    for one, same in zip(together, alone, strict=True):
        assert (one.dialogue_id, one.turn_index) == (same.dialogue_id, same.turn_index)
        found = {each[:2]: each.defect for each in one.influences}
        assert found == pytest.approx({each[:2]: each.defect for each in same.influences}, abs=1e-5)


def test_a_turn_that_is_not_there_cannot_be_explained(model: Model, repeated: Dialogue) -> None:
    with pytest.raises(IndexError, match="dialogue d has no turn 3, only 3"):
        explain(model, repeated, 3)
