"""The suites say what the schemas say, and the frames are what the suites speak of."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from schemas.expectations import SCHEMAS, frames, parts_frame, suite
from schemas.log import AsrHypothesis, Dialogue, NluHypothesis, Response, Turn
from schemas.profile import LOGS_SCHEMA, log_profile


def expected(frame: str) -> set[tuple[str, str]]:
    return {(each.column, each.expectation_type) for each in suite(frame).expectations if hasattr(each, "column")}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_that_is_not_null_is_expected_so(name: str) -> None:
    found = expected(name)
    for field in SCHEMAS[name]:
        if not field.nullable and not pa.types.is_nested(field.type):
            assert (field.name, "expect_column_values_to_not_be_null") in found


def test_an_enum_inside_a_list_is_expected() -> None:
    assert ("abstained", "expect_column_values_to_be_in_set") in expected("turns.abstained")


def test_every_probability_of_a_struct_is_expected_in_range() -> None:
    members = {column for column, kind in expected("turns") if kind == "expect_column_values_to_be_between"}
    assert "failure_point_probabilities.wake" in members


def test_elements_of_a_list_stand_beside_their_dialogue() -> None:
    table = pa.Table.from_pylist(
        [
            {"dialogue_id": "a", "turn_indexes": [0, 2], "failure_point": "correct"},
            {"dialogue_id": "b", "turn_indexes": [5], "failure_point": "correct"},
        ],
        schema=SCHEMAS["goals"],
    )
    found = frames("goals", table)
    assert found["goals.turn_indexes"].to_dict("list") == {"dialogue_id": ["a", "a", "b"], "turn_indexes": [0, 2, 5]}
    assert found["goals"]["turn_indexes.length"].tolist() == [2, 1]


def test_a_part_that_cannot_be_read_has_a_row_without_columns() -> None:
    frame = parts_frame("goals", {"good": SCHEMAS["goals"], "bad": None})
    assert frame.set_index("part")["columns"].isna().to_dict() == {"good": False, "bad": True}


def test_profile_of_a_dialogue_is_a_row_of_its_schema() -> None:
    start = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    dialogue = Dialogue(
        dialogue_id="a",
        started_at=start,
        turns=[
            Turn(text="play jazz", asr=[AsrHypothesis(text="play jazz")], barge_in=True),
            Turn(text="stop", nlu=[NluHypothesis(intent="stop")], response=Response(text="OK"), barge_in=False),
            Turn(text="a"),
            Turn(text=""),
        ],
    )
    table = pa.Table.from_pylist([log_profile(dialogue)], schema=LOGS_SCHEMA)
    assert table.to_pylist() == [
        {
            "dialogue_id": "a",
            "turn_count": 4,
            "text_chars_max": 9,
            "asr_share": 0.25,
            "nlu_share": 0.25,
            "response_share": 0.25,
            "barge_in_share": 0.5,
            "started_at": start,
            "locale": None,
            "device": None,
        }
    ]
