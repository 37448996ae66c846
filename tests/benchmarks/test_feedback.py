"""What the benchmark of feedback takes away, and how it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.feedback import compare, without_annotations
from labelers.model import Model
from pipelines.logs import is_annotated, read_logs

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"


def test_nothing_annotated_is_left_and_the_rest_is() -> None:
    dialogues = read_logs([str(LOGS)], "jsonl").dialogues
    bare = without_annotations(dialogues)
    assert all(map(is_annotated, dialogues))
    assert not any(map(is_annotated, bare))
    assert [turn.text for each in bare for turn in each.turns] == [
        turn.text for each in dialogues for turn in each.turns
    ]


def test_the_difference_is_of_the_two_scores(tiny_model_dir: Path) -> None:
    dialogues = read_logs([str(LOGS)], "jsonl").dialogues
    labels = Model.load(tiny_model_dir).label(dialogues)
    perfect = Model.load(tiny_model_dir).label(dialogues)
    for dialogue, labelled in zip(dialogues, perfect, strict=True):
        for turn, label in zip(dialogue.turns, labelled.turns, strict=True):
            assert turn.annotation is not None
            assert turn.annotation.failure_point is not None
            label.failure_point = turn.annotation.failure_point
            label.failure_point_probabilities = {
                point: float(point == turn.annotation.failure_point) for point in label.failure_point_probabilities
            }
    compared = compare(dialogues, labels, perfect, 20)
    for before, after, difference in compared.values():
        assert difference.value == pytest.approx(after.value - before.value)
        assert difference.low <= difference.value <= difference.high
    assert compared["defect calibration error"][1].value == 0 < compared["defect calibration error"][0].value
    assert compared["defect F1"][1].value == compared["defect average precision"][1].value == 1
    assert compared["success ROC AUC"][2].high == 0
