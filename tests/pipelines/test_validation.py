"""What a run wrote is checked, all of it, and a failure names the column, the expectation and the dialogue."""

from __future__ import annotations

import datetime as dt
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.validation import Findings, ValidationReport, conclude, examine, validate_parts
from schemas.expectations import suite
from schemas.labels import (
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
from schemas.log import Dialogue, FailurePoint, Turn
from schemas.profile import LOGS_SCHEMA, log_profile
from schemas.rejects import RAW_LIMIT

Rows = dict[str, list[dict[str, Any]]]


def turn(dialogue_id: str, index: int, failure_point: FailurePoint) -> TurnLabels:
    probabilities = {point.value: 0.5 if point == failure_point else 0.1 for point in FailurePoint}
    return TurnLabels(
        dialogue_id=dialogue_id,
        turn_index=index,
        goal_id=f"{dialogue_id}/0",
        is_goal_start=index == 0,
        intent="play_music",
        intent_confidence=0.7,
        slots=[SlotLabel("artist", "queen", 5, 10, 0.9)],
        failure_point=failure_point,
        failure_point_confidence=0.5,
        failure_point_probabilities=probabilities,
        defect_probability=1 - probabilities["correct"],
        rephrase_of=0 if index == 1 else None,
        feedback_signals=[Signal.REPHRASE] if index == 0 else [],
        abstained=[Label.SLOTS],
    )


def dialogue(dialogue_id: str) -> DialogueLabels:
    turns = [
        turn(dialogue_id, index, point)
        for index, point in enumerate([FailurePoint.ASR, FailurePoint.CORRECT, FailurePoint.CORRECT])
    ]
    goal = GoalLabels(dialogue_id, f"{dialogue_id}/0", [0, 1, 2], None, False, 0.8, FailurePoint.ASR, 0)
    return DialogueLabels(dialogue_id, 3, 1, 1, False, 0.8, turns, [goal])


def good_rows(count: int = 4) -> Rows:
    """Every table of `count` dialogues d0, d1, …, as rows."""
    ids = [f"d{index}" for index in range(count)]
    tables = to_tables([dialogue(each) for each in ids], Provenance("run", "builtin", "1"))
    logs = [log_profile(Dialogue(dialogue_id=each, turns=[Turn(text="play queen")] * 3)) for each in ids]
    reject = {
        "source": "log.jsonl",
        "position": 7,
        "stage": "parse",
        "reason": "invalid_json",
        "message": "not JSON",
        "raw": "{",
    }
    return {"logs": logs, "rejected": [reject]} | {name: table.to_pylist() for name, table in tables.items()}


def write(folder: Path, rows: Rows, rows_per_part: int | None = None) -> dict[str, list[str]]:
    """The rows as Parquet; a table's parts by name."""
    parts: dict[str, list[str]] = {}
    for name, all_rows in rows.items():
        step = rows_per_part or len(all_rows)
        parts[name] = []
        for start in range(0, len(all_rows), step):
            schema = LOGS_SCHEMA if name == "logs" else TABLES[name]
            path = folder / f"{name}-{start}.parquet"
            pq.write_table(pa.Table.from_pylist(all_rows[start : start + step], schema=schema), path)
            parts[name].append(str(path))
    return parts


def test_good_tables_pass(tmp_path: Path) -> None:
    report = validate_parts(write(tmp_path, good_rows()))
    assert report.success, report.describe_failure()
    assert report.rows == {"logs": 4, "rejected": 1, "turns": 12, "goals": 4, "dialogues": 4}


def corrupt(table: str, **values: Any) -> Callable[[Rows], None]:
    """Sets values in the last row of a table; the last row is of dialogue d3."""

    def change(rows: Rows) -> None:
        rows[table][-1].update(values)

    return change


def repeat(table: str) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append(rows[table][-1])


def probabilities(**changed: float) -> dict[str, float]:
    return {"correct": 0.5, "wake": 0.1, "asr": 0.1, "nlu": 0.1, "er": 0.1, "result": 0.1} | changed


@pytest.mark.parametrize(
    ("change", "table", "column", "expectation"),
    [
        (corrupt("turns", turn_index=-1), "turns", "turn_index", "values_to_be_between"),
        (corrupt("turns", failure_point="gpu"), "turns", "failure_point", "values_to_be_in_set"),
        (
            corrupt("turns", failure_point="nlu", failure_point_probabilities=probabilities(asr=0.2, nlu=0.0)),
            "turns",
            "failure_point.shortfall",
            "values_to_be_between",
        ),
        (
            corrupt("turns", failure_point_probabilities=probabilities(wake=0.2)),
            "turns",
            "failure_point_probabilities.sum",
            "values_to_be_between",
        ),
        (
            corrupt("turns", failure_point_probabilities=probabilities(wake=-0.1, asr=0.3)),
            "turns",
            "failure_point_probabilities.wake",
            "values_to_be_between",
        ),
        (
            corrupt("turns", defect_probability=float("nan")),
            "turns",
            "defect_probability",
            "values_to_not_be_null",
        ),
        (corrupt("turns", defect_probability=0.9), "turns", "defect_probability.error", "values_to_be_between"),
        (
            corrupt("turns", rephrase_of=2),
            "turns",
            "turn_index, rephrase_of",
            "pair_values_a_to_be_greater_than_b",
        ),
        (
            corrupt("turns", intent=None),
            "turns",
            "intent_confidence.present_as_intent",
            "values_to_be_in_set",
        ),
        (corrupt("turns", abstained=["everything"]), "turns", "abstained", "values_to_be_in_set"),
        (corrupt("turns", feedback_signals=["sigh"]), "turns", "feedback_signals", "values_to_be_in_set"),
        (
            corrupt("turns", slots=[{"name": "a", "value": "b", "start": 4, "end": 3, "confidence": 0.5}]),
            "turns",
            "slots.end, slots.start",
            "pair_values_a_to_be_greater_than_b",
        ),
        (
            corrupt("turns", slots=[{"name": "a", "value": "b", "start": None, "end": None, "confidence": 1.5}]),
            "turns",
            "slots.confidence",
            "values_to_be_between",
        ),
        (repeat("turns"), "turns", "dialogue_id, turn_index", "compound_columns_to_be_unique"),
        (corrupt("goals", turn_indexes=[]), "goals", "turn_indexes.length", "values_to_be_between"),
        (
            corrupt("goals", turn_indexes=[0, 1, 1]),
            "goals",
            "dialogue_id, turn_indexes",
            "compound_columns_to_be_unique",
        ),
        (
            corrupt("goals", failure_turn=None),
            "goals",
            "failure_turn.present_as_failure",
            "values_to_be_in_set",
        ),
        (corrupt("goals", failure_turn=9), "goals", "failure_turn.in_goal", "values_to_be_in_set"),
        (repeat("goals"), "goals", "goal_id", "values_to_be_unique"),
        (corrupt("dialogues", goal_count=0), "dialogues", "goal_count", "values_to_be_between"),
        (
            corrupt("dialogues", defect_count=4),
            "dialogues",
            "turn_count, defect_count",
            "pair_values_a_to_be_greater_than_b",
        ),
        (
            corrupt("dialogues", success_confidence=1.1),
            "dialogues",
            "success_confidence",
            "values_to_be_between",
        ),
        (repeat("dialogues"), "dialogues", "dialogue_id", "values_to_be_unique"),
        (corrupt("logs", asr_share=1.5), "logs", "asr_share", "values_to_be_between"),
        (corrupt("logs", turn_count=0), "logs", "turn_count", "values_to_be_between"),
    ],
)
def test_a_corrupt_row_is_named(
    tmp_path: Path, change: Callable[[Rows], None], table: str, column: str, expectation: str
) -> None:
    rows = good_rows()
    change(rows)
    report = validate_parts(write(tmp_path, {table: rows[table]}))
    found = {(each.table, each.column, each.expectation): each for each in report.failures}
    prefix = "expect_" if expectation.startswith("compound") else "expect_column_"
    assert found[table, column, prefix + expectation].examples == ["d3"]


@pytest.mark.parametrize(
    ("column", "value"), [("reason", "bad luck"), ("stage", "lunch"), ("raw", "x" * (RAW_LIMIT + 1))]
)
def test_a_corrupt_reject_is_named_by_source_and_position(tmp_path: Path, column: str, value: str) -> None:
    rows = good_rows()
    rows["rejected"][-1][column] = value
    [failure] = validate_parts(write(tmp_path, {"rejected": rows["rejected"]})).failures
    assert (failure.table, failure.column, failure.examples) == ("rejected", column, ["log.jsonl:7"])


def test_one_wrong_clock_passes_and_a_wrong_epoch_does_not(tmp_path: Path) -> None:
    logs = good_rows()["logs"]
    epoch, may = dt.datetime(1970, 1, 20, tzinfo=dt.UTC), dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    some = [row | {"started_at": may} for row in logs[1:]] + [logs[0] | {"started_at": epoch}]
    assert validate_parts(write(tmp_path, {"logs": some})).success
    only = [row | {"started_at": None} for row in logs[1:]] + [logs[0] | {"started_at": epoch}]
    assert validate_parts(write(tmp_path, {"logs": only})).success
    every = [row | {"started_at": epoch} for row in logs]
    [failure] = validate_parts(write(tmp_path, {"logs": every})).failures
    assert failure.column == "started_at"


def test_a_lost_part_is_found(tmp_path: Path) -> None:
    parts = write(tmp_path, good_rows(), rows_per_part=3)
    parts["turns"].pop()
    columns = {failure.column for failure in validate_parts(parts).failures}
    assert "turns, dialogues.turn_count" in columns


def test_a_part_of_wrong_types_is_named_and_its_rows_are_left_out(tmp_path: Path) -> None:
    parts = write(tmp_path, good_rows(), rows_per_part=2)
    table = pq.read_table(parts["rejected"][0])
    wrong = table.set_column(1, "position", pa.array(["7"]))
    pq.write_table(wrong, parts["rejected"][0])
    report = validate_parts({"rejected": parts["rejected"]})
    assert [(each.column, each.examples) for each in report.failures] == [("position", parts["rejected"])]
    assert report.rows == {"rejected": 0}


def test_a_file_that_is_not_parquet_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(b"PAR1 and no more")
    report = validate_parts({"rejected": [str(path)]})
    assert report.failures[0].examples == [str(path)]


def test_counts_do_not_depend_on_parts_and_batches(tmp_path: Path) -> None:
    rows = good_rows(6)
    rows["turns"][4]["failure_point"] = rows["turns"][13]["failure_point"] = "gpu"
    (tmp_path / "many").mkdir()
    one = validate_parts(write(tmp_path, rows))
    many = validate_parts(write(tmp_path / "many", rows, rows_per_part=3), batch_rows=6)

    def counts(report: ValidationReport) -> list[tuple[Any, ...]]:
        rows = [each for each in report.outcomes if not each.frame.endswith(".parts")]
        return sorted(
            (each.frame, each.column, each.expectation, each.element_count, each.unexpected_count) for each in rows
        )

    assert counts(one) == counts(many)
    [failure] = [each for each in many.failures if each.column == "failure_point"]
    assert (failure.unexpected_count, failure.examples) == (2, ["d1", "d4"])


def test_what_was_found_in_some_parts_adds_up_to_what_is_in_all(tmp_path: Path) -> None:
    rows = good_rows(6)
    rows["dialogues"][1]["success_confidence"] = rows["dialogues"][4]["success_confidence"] = 7.0
    rows["dialogues"][5]["turn_count"] = 4
    found = []
    for name, part in (("first", slice(3)), ("second", slice(3, None))):
        (tmp_path / name).mkdir()
        findings = examine(write(tmp_path / name, {table: some[part] for table, some in rows.items() if some[part]}))
        # As it comes from a worker.
        found.append(msgspec.json.decode(msgspec.json.encode(findings), type=Findings))
    report = conclude(found)
    (tmp_path / "all").mkdir()
    whole = validate_parts(write(tmp_path / "all", rows))
    assert report.rows == whole.rows
    failures = {(each.frame, each.column): each for each in report.failures}
    assert failures.keys() == {(each.frame, each.column) for each in whole.failures}
    sure = failures["dialogues", "success_confidence"]
    assert (sure.element_count, sure.unexpected_count, sure.examples) == (6, 2, ["d1", "d4"])
    assert ("totals", "turns, dialogues.turn_count") in failures


def test_no_two_expectations_are_added_up_as_one(tmp_path: Path) -> None:
    outcomes = validate_parts(write(tmp_path, good_rows())).outcomes
    frames = {each.frame for each in outcomes}
    assert {"turns", "turns.slots", "turns.parts", "goals.turn_indexes", "totals"} <= frames
    assert len(outcomes) == sum(len(suite(frame).expectations) for frame in frames)


def test_the_sentence_names_column_expectation_count_and_dialogue(tmp_path: Path) -> None:
    rows = good_rows()
    rows["dialogues"][2]["success_confidence"] = 7.0
    assert validate_parts(write(tmp_path, rows)).describe_failure() == (
        "Validation failed: dialogues, column success_confidence: expect_column_values_to_be_between "
        "does not hold (1 of 4 rows, e.g. d2)."
    )


def test_the_json_has_every_expectation(tmp_path: Path) -> None:
    report = validate_parts(write(tmp_path, good_rows()))
    saved = json.loads(report.to_json())
    assert saved["success"] is True
    assert len(saved["expectations"]) == len(report.outcomes)
    assert saved["rows"]["turns"] == 12


def test_tables_without_parts_pass() -> None:
    assert validate_parts({"turns": [], "goals": [], "dialogues": [], "rejected": []}).success


def test_validation_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = write(tmp_path, good_rows())

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert validate_parts(parts).success
