"""The demo shows a labelled output truly: its counts, a failing dialogue, a query that runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.demo import main, show
from schemas.formats import get_format
from schemas.formats.base import DialogueFormat
from schemas.labels import TABLES, DialogueLabels, GoalLabels, Label, Provenance, TurnLabels, to_tables
from schemas.log import Dialogue, FailurePoint

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"


def dialogues() -> list[Dialogue]:
    jsonl = get_format("jsonl")
    assert isinstance(jsonl, DialogueFormat)
    return [each for line in LOGS.read_bytes().splitlines() for each in jsonl.parse(line)]


def as_annotated(dialogue: Dialogue, confidence: float) -> DialogueLabels:
    """The labels that the annotation says, all with one confidence."""
    turns = []
    for index, turn in enumerate(dialogue.turns):
        truth = turn.annotation
        assert truth is not None and truth.failure_point is not None
        rest = (1 - confidence) / (len(FailurePoint) - 1)
        probabilities = {str(p): confidence if p == truth.failure_point else rest for p in FailurePoint}
        turns.append(
            TurnLabels(
                dialogue_id=dialogue.dialogue_id,
                turn_index=index,
                goal_id=f"{dialogue.dialogue_id}/0",
                is_goal_start=index == 0,
                intent=truth.intent,
                intent_confidence=None if truth.intent is None else confidence,
                slots=[],
                failure_point=truth.failure_point,
                failure_point_confidence=confidence,
                failure_point_probabilities=probabilities,
                defect_probability=1 - probabilities["correct"],
                rephrase_of=None,
                feedback_signals=[],
                abstained=[Label.INTENT],
            )
        )
    goal = GoalLabels(
        dialogue.dialogue_id,
        f"{dialogue.dialogue_id}/0",
        list(range(len(turns))),
        None,
        True,
        confidence,
        FailurePoint.CORRECT,
        None,
    )
    return DialogueLabels(dialogue.dialogue_id, len(turns), 1, 0, True, confidence, turns, [goal])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    labels = [as_annotated(each, 0.9 if each.dialogue_id == "demo-25" else 0.8) for each in dialogues()]
    for name, table in to_tables(labels, Provenance("run", "builtin", "1")).items():
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "part.parquet")
    return tmp_path


def shown(output: Path) -> str:
    text = io.StringIO()
    show(str(output), str(LOGS), Console(file=text, width=200))
    return text.getvalue()


def test_it_says_that_the_logs_are_synthetic(output: Path) -> None:
    assert "synthetic" in shown(output)


def test_every_table_has_its_rows_and_its_place(output: Path) -> None:
    lines = {
        line.split("│")[1].strip(): line for line in shown(output).splitlines() if "/*.parquet" in line and "│" in line
    }
    turns = sum(len(each.turns) for each in dialogues())
    assert set(lines) == set(TABLES)
    assert f" {turns} " in lines["turns"]
    assert f"{output}/turns/" in lines["turns"]
    assert " 0 " in lines["rejected"]


def test_the_dialogue_that_failed_most_surely_is_shown_with_its_words(output: Path) -> None:
    text = shown(output)
    assert "One dialogue that failed: demo-25" in text
    assert "set a timer for fifty minutes" in text
    assert "asr 0.90" in text
    assert "set_timer? 0.90" in text


def test_the_query_counts_what_fails(output: Path) -> None:
    result = shown(output).rpartition("LIMIT 8")[2]
    [top] = [line for line in result.splitlines() if "lights_off" in line]
    assert [cell.strip() for cell in top.split("│")[1:-1]] == ["lights_off", "result", "2", "0.8"]


def test_an_output_without_failures_is_shown(output: Path) -> None:
    path = output / "turns" / "part.parquet"
    table = pq.read_table(path)
    column = table.schema.get_field_index("failure_point")
    pq.write_table(table.set_column(column, "failure_point", pa.array(["correct"] * len(table))), path)
    assert "No turn failed." in shown(output)


def test_a_folder_without_labels_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(LOGS), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_logs_have_every_failure_point_and_say_that_they_are_made_up() -> None:
    found = {turn.annotation.failure_point for each in dialogues() for turn in each.turns if turn.annotation}
    assert found == set(FailurePoint)
    assert "synthetic" in (LOGS.parent / "README.md").read_text()


def test_the_readme_of_the_logs_counts_them_rightly() -> None:
    readme = (LOGS.parent / "README.md").read_text()
    points = [json.loads(line)["turns"] for line in LOGS.read_text().splitlines()]
    flat = [turn["annotation"]["failure_point"] for turns in points for turn in turns]
    assert f"{len(points)} dialogues ({len(flat)} turns)" in readme
    for point in FailurePoint:
        assert f"| `{point}` | {flat.count(point)} |" in readme
