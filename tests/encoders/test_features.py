"""Numbers and categories of a turn."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pytest

from encoders.features import CATEGORIES, CATEGORY_BUCKETS, NUMBERS, category_id, turn_features
from schemas.log import (
    AsrHypothesis,
    Dialogue,
    EntityResolution,
    ExplicitFeedback,
    NluHypothesis,
    Response,
    Slot,
    Turn,
    validate,
)

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def _features(*turns: Turn, **of_dialogue: str) -> list[dict[str, float]]:
    found = turn_features(validate(Dialogue(dialogue_id="a", turns=list(turns), **of_dialogue)))
    assert found.numbers.dtype == np.float32
    return [
        dict(zip(NUMBERS + CATEGORIES, (*numbers.tolist(), *categories.tolist()), strict=True))
        for numbers, categories in zip(found.numbers, found.categories, strict=True)
    ]


def test_of_a_text_alone_all_else_is_missing() -> None:
    (row,) = _features(Turn(text="hi there"))
    known = {"text_words": 2, "text_characters_per_word": 4, "position": 0, "turns_left": 0}
    assert {name: row[name] for name in NUMBERS if not math.isnan(row[name])} == known
    assert all(row[name] == 0 for name in CATEGORIES)


def test_a_turn_with_everything_lacks_nothing() -> None:
    turns = [
        Turn(
            text="call anna",
            started_at=NOON + dt.timedelta(seconds=10 * index),
            ended_at=NOON + dt.timedelta(seconds=10 * index + 2),
            wake_score=0.9,
            asr=[AsrHypothesis(text="call anna", score=0.8), AsrHypothesis(text="call hanna", score=0.1)],
            nlu=[
                NluHypothesis(
                    domain="phone", intent="call", slots=[Slot(name="who", value=f"anna {index}")], score=0.7
                ),
                NluHypothesis(intent="text", score=0.2),
            ],
            entities=[
                EntityResolution(slot="who", value="anna", name=name, score=score)
                for name, score in (("Anna K", 0.6), ("Hanna", 0.5))
            ],
            response=Response(text="calling anna", action="call", status="success"),
            barge_in=False,
            feedback=ExplicitFeedback.NEGATIVE,
        )
        for index in range(4)
    ]
    row = _features(*turns, device="phone", locale="en-GB")[1]
    assert not [name for name in NUMBERS if math.isnan(row[name])]
    assert all(row[name] > 0 for name in CATEGORIES)
    assert row["asr_margin"] == pytest.approx(0.7)
    assert row["seconds_since_previous"] == row["seconds_to_next"] == 8
    assert row["words_per_second"] == 1
    assert row["text_like_next"] == 100
    assert row["feedback"] == 0


@pytest.mark.parametrize("score", [1.7e308, -1.7e308])
def test_scores_beyond_float32_stay_finite(score: float) -> None:
    nlu = [NluHypothesis(intent="a", score=score), NluHypothesis(intent="b", score=-score)]
    asr = [AsrHypothesis(text="hi", score=score), AsrHypothesis(text="ho", score=score)]
    (row,) = _features(Turn(text="hi", asr=asr, nlu=nlu, wake_score=score))
    assert math.copysign(1, row["asr_score"]) == math.copysign(1, score)
    assert not any(math.isinf(row[name]) for name in NUMBERS)
    assert not any(math.isnan(row[name]) for name in ("asr_posterior", "asr_entropy", "nlu_margin", "wake_score"))


def test_a_first_hypothesis_without_a_score_does_not_take_that_of_the_second() -> None:
    turn = Turn(
        asr=[AsrHypothesis(text="hi"), AsrHypothesis(text="ho", score=0.3)],
        nlu=[NluHypothesis(intent="a"), NluHypothesis(intent="b", score=0.4)],
        entities=[EntityResolution(slot="x"), EntityResolution(slot="x", score=0.5)],
    )
    first, second = _features(turn, turn)
    names = ("asr_score", "asr_margin", "asr_posterior", "nlu_score", "nlu_margin", "er_score", "er_margin")
    assert all(math.isnan(first[name]) for name in (*names, "asr_score_next", "nlu_score_next"))
    assert math.isnan(second["asr_score_previous"])


def test_log_probabilities_give_a_posterior_as_probabilities_do() -> None:
    weights = (0.6, 0.3, 0.1)
    logs, shares = (
        _features(Turn(asr=[AsrHypothesis(text=str(index), score=f(w)) for index, w in enumerate(weights)]))[0]
        for f in (math.log, float)
    )
    assert logs["asr_posterior"] == pytest.approx(shares["asr_posterior"]) == pytest.approx(0.6)
    assert logs["asr_entropy"] == pytest.approx(shares["asr_entropy"])


def test_an_action_has_one_id_wherever_it_is_seen() -> None:
    before, after = _features(*[Turn(text="hi", response=Response(action="greet"))] * 2)
    assert before["action"] == before["next_action"] == after["previous_action"] > 0


def test_category_ids_are_in_range_and_never_missing_for_a_value() -> None:
    ids = [category_id("intent", value) for value in ("a", "ä", "\ud800", "x" * 100_000, *map(str, range(3_000)))]
    assert 1 <= min(ids) <= max(ids) < CATEGORY_BUCKETS
    assert category_id("intent", "") == category_id("intent", None) == 0


def test_similarity_looks_at_the_head_of_a_long_text() -> None:
    first, _ = _features(Turn(text="a" * 100_000), Turn(text="a" * 1_000))
    assert first["text_like_next"] == 100


def _hypothesis(score: float, **slots: str) -> NluHypothesis:
    return NluHypothesis(
        intent="inform", slots=[Slot(name=name, value=value) for name, value in slots.items()], score=score
    )


def test_slots_have_the_mass_of_all_hypotheses_that_have_them() -> None:
    turns = [
        Turn(
            text="thai food in the north",
            asr=[AsrHypothesis(text="thai food in the north", score=0.6), AsrHypothesis(text="tie food", score=0.2)],
            nlu=[
                _hypothesis(0.5, food="Thai"),
                _hypothesis(0.3, food="thai", area="north"),
                _hypothesis(0.2),
            ],
            response=Response(text="A thai place in the north?"),
        ),
        Turn(
            text="in the north",
            asr=[AsrHypothesis(text="in the north", score=0.9)],
            nlu=[_hypothesis(0.8, food="thai", area="north")],
        ),
    ]
    first, second = _features(*turns)
    known = {
        "slot_mass": 0.8,
        "other_slot_mass": 0.3,
        "no_slots_mass": 0.2,
        "frame_mass": 0.5,
        "slot_values_mass_in_asr": 0.75,
        "other_slot_mass_in_response": 0.3,
        "slots_said_before": 0.0,
        "slots_in_next": 1.0,
        "next_slots": 2.0,
        "next_slot_mass_before": 0.3,
        "next_slot_values_mass_in_asr": 0.75,
        "next_slot_values_in_response": 1.0,
        "asr_score_next": 0.9,
        "nlu_score_next": 0.8,
    }
    assert {name: first[name] for name in known} == pytest.approx(known)
    assert math.isnan(first["asr_score_previous"])
    known = {"slot_mass": 1.0, "slots_said_before": 0.5, "slot_values_in_prompt": 1.0, "asr_score_previous": 0.6}
    assert {name: second[name] for name in known} == pytest.approx(known)
    assert math.isnan(second["slots_in_next"])


def test_hypotheses_without_scores_weigh_alike() -> None:
    (row,) = _features(Turn(text="x", nlu=[_hypothesis(0.9, food="thai"), NluHypothesis(intent="other")]))
    assert row["slot_mass"] == pytest.approx(0.5)
    assert row["no_slots_mass"] == pytest.approx(0.5)
