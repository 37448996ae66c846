"""The label tables: the columns of the contract, and rows that fit them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.labels import (
    LABEL_SCHEMA_VERSION,
    TABLES,
    DialogueLabels,
    GoalLabels,
    Label,
    Provenance,
    Signal,
    SlotLabel,
    TurnLabels,
    to_tables,
)
from schemas.log import FailurePoint

GOLDEN = Path(__file__).parent / "golden"
PROVENANCE = Provenance(run_id="r", model_uri="builtin", model_version="v")


@pytest.fixture
def labels() -> DialogueLabels:
    turn = TurnLabels(
        dialogue_id="d",
        turn_index=0,
        goal_id="d/0",
        is_goal_start=True,
        intent="play",
        intent_confidence=0.75,
        slots=[SlotLabel(name="artist", value="joy division", start=5, end=17, confidence=0.5)],
        failure_point=FailurePoint.ER,
        failure_point_confidence=0.5,
        failure_point_probabilities={point.value: 0.5 if point == "er" else 0.1 for point in FailurePoint},
        defect_probability=0.9,
        rephrase_of=None,
        feedback_signals=[Signal.BARGE_IN],
        abstained=[Label.SLOTS, Label.INTENT],
    )
    goal = GoalLabels(
        dialogue_id="d",
        goal_id="d/0",
        turn_indexes=[0],
        intent="play",
        success=False,
        success_confidence=0.875,
        failure_point=FailurePoint.ER,
        failure_turn=0,
    )
    return DialogueLabels(
        dialogue_id="d",
        turn_count=1,
        goal_count=1,
        defect_count=1,
        success=False,
        success_confidence=0.875,
        turns=[turn],
        goals=[goal],
    )


def test_labels_become_a_row_in_each_table(labels: DialogueLabels) -> None:
    tables = to_tables([labels, labels], PROVENANCE)
    assert {name: table.num_rows for name, table in tables.items()} == {"turns": 2, "goals": 2, "dialogues": 2}


def test_tables_have_the_schema_of_the_contract(labels: DialogueLabels) -> None:
    for dialogues in ([labels], []):
        for name, table in to_tables(dialogues, PROVENANCE).items():
            assert table.schema.equals(TABLES[name], check_metadata=True)


def test_a_turn_row_says_what_its_labels_say(labels: DialogueLabels) -> None:
    (row,) = to_tables([labels], PROVENANCE)["turns"].to_pylist()
    assert row["failure_point"] == "er"
    assert row["failure_point_probabilities"]["er"] == 0.5
    assert row["slots"] == [{"name": "artist", "value": "joy division", "start": 5, "end": 17, "confidence": 0.5}]
    assert row["feedback_signals"] == ["barge_in"]
    assert row["abstained"] == ["slots", "intent"]
    assert row["rephrase_of"] is None


def test_a_turn_row_says_where_it_comes_from(labels: DialogueLabels) -> None:
    (row,) = to_tables([labels], PROVENANCE)["turns"].to_pylist()
    assert (row["run_id"], row["model_uri"], row["model_version"]) == ("r", "builtin", "v")
    assert row["schema_version"] == LABEL_SCHEMA_VERSION


def test_the_tables_change_only_with_their_version(described: Callable[[pa.Schema], str]) -> None:
    golden = GOLDEN / f"labels-{LABEL_SCHEMA_VERSION}.txt"
    found = "\n".join(f"{name}\n{described(schema)}" for name, schema in TABLES.items())
    assert golden.exists(), f"a new version of the tables: write this to {golden.name}\n{found}"
    assert found == golden.read_text(), "the tables have changed: raise LABEL_SCHEMA_VERSION"


def test_every_table_names_its_version() -> None:
    version = {b"faultline.label_schema_version": LABEL_SCHEMA_VERSION.encode()}
    assert all(schema.metadata == version for schema in TABLES.values())
