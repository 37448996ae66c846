"""What comes back from the annotation tools: the round trip through their packages, and what goes wrong on the way."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from pipelines import evaluate, import_annotations, label
from pipelines.annotation.tasks import Question, Reason
from pipelines.errors import UserError
from pipelines.export import Tool
from pipelines.import_annotations import ImportSummary
from pipelines.labelled import Labelled
from pipelines.logs import annotate, read_logs
from schemas.log import Dialogue, Slot

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"

os.environ["DO_NOT_TRACK"] = "true"
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "dstc2"


class Gold(NamedTuple):
    """A labelled output, and what is true of its logs."""

    labels: Path
    truth: dict[str, Dialogue]


def bare(dialogue: Dialogue) -> Dialogue:
    turns = [msgspec.structs.replace(turn, annotation=None) for turn in dialogue.turns]
    return msgspec.structs.replace(dialogue, turns=turns, annotation=None)


def labelled(folder: Path, dialogues: Sequence[Dialogue], model: Path) -> Gold:
    """The dialogues labelled without their annotation."""
    logs = folder / "bare.jsonl"
    logs.write_bytes(b"".join(msgspec.json.encode(bare(each)) + b"\n" for each in dialogues))
    output = folder / "out"
    label.run(["--input", str(logs), "--model", str(model), "--output", str(output), "--no-progress"])
    return Gold(output, {each.dialogue_id: each for each in dialogues})


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Gold:
    dialogues = read_logs([str(LOGS)], "jsonl").dialogues
    return labelled(tmp_path_factory.mktemp("spoken"), dialogues, tiny_model_dir)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Gold:
    """Of real users; many of their slots are no words of the text."""
    if not SHARED.is_dir():
        pytest.skip("the dstc2 data is not beside the checkout")
    folder = tmp_path_factory.mktemp("calls")
    few = folder / "few.jsonl"
    with gzip.open(SHARED / "train.jsonl.gz", "rb") as lines:
        few.write_bytes(b"".join(line for line, _ in zip(lines, range(20), strict=False)))
    dialogues = read_logs([str(few)], "dstc2").dialogues
    assert annotate(dialogues, str(SHARED / "train_failure_points.jsonl.gz"))
    return labelled(folder, dialogues, tiny_model_dir)


def slots(found: Sequence[Slot] | None) -> list[tuple[Any, ...]]:
    return sorted((slot.name, slot.value, slot.start or -1, slot.end or -1) for slot in found or [])


@pytest.mark.slow
@pytest.mark.parametrize("source", ["spoken", "calls"])
@pytest.mark.parametrize(("tool", "package"), [(Tool.LABEL_STUDIO, "label_studio_sdk"), (Tool.ARGILLA, "argilla")])
def test_true_answers_come_back_as_the_truth(
    source: str, tool: Tool, package: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip(package, reason="it is in the extra annotate")
    from benchmarks.annotation_round_trip import annotated_through

    gold: Gold = request.getfixturevalue(source)
    output = annotated_through(tool, gold.labels, gold.truth, 60, tmp_path)
    imported = read_logs([str(output)], "jsonl").dialogues
    asked = [(dialogue.dialogue_id, index) for dialogue in imported for index in annotated(dialogue)]
    assert len(asked) == 60
    for dialogue in imported:
        truth = gold.truth[dialogue.dialogue_id]
        assert dialogue.annotation is not None and truth.annotation is not None
        assert dialogue.annotation.success == truth.annotation.success
        for index in annotated(dialogue):
            found, known = dialogue.turns[index].annotation, truth.turns[index].annotation
            assert found is not None and known is not None
            assert (found.failure_point, found.intent) == (known.failure_point, known.intent)
            assert found.transcript == known.transcript
            assert slots(found.slots) == slots(known.slots)
        assert bare(dialogue) == bare(truth)


def annotated(dialogue: Dialogue) -> list[int]:
    return [index for index, turn in enumerate(dialogue.turns) if turn.annotation is not None]


# What people do


@pytest.fixture(scope="module")
def place(spoken: Gold) -> dict[str, Any]:
    """What a task says of the first turn of the first dialogue."""
    with Labelled.open(str(spoken.labels), logs=False) as output:
        dataset = output.manifests[0].dataset
    dialogue = next(iter(spoken.truth.values()))
    return {
        "dataset": dataset,
        "dialogue_id": dialogue.dialogue_id,
        "turn_index": 0,
        "text": dialogue.turns[0].text,
        "spoken": True,
    }


def task(place: dict[str, Any], *people: dict[str, Any] | None, **changed: Any) -> dict[str, Any]:
    """A task of Label Studio's export with an annotation for each of `people`; None skipped it."""
    return {
        "data": {**place, **changed},
        "annotations": [
            {"was_cancelled": given is None, "result": [region(*each) for each in (given or {}).items()]}
            for given in people
        ],
    }


def region(question: str, answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        value = answer
    elif question in (Question.TRANSCRIPT, Question.OTHER_SLOTS, Question.OTHER_INTENT):
        value = {"text": [answer]}
    else:
        value = {"choices": [answer]}
    return {"from_name": question, "to_name": "text", "type": "any", "value": value}


def imported(gold: Gold, folder: Path, *tasks: Any) -> tuple[ImportSummary, list[Dialogue]]:
    answers, output = folder / "answers.json", folder / "annotated.jsonl.gz"
    answers.write_text(json.dumps(tasks))
    summary = import_annotations.run(
        ["--from", "label-studio", "--input", str(answers), "--labels", str(gold.labels), "--output", str(output)]
    )
    return summary, read_logs([str(output)], "jsonl").dialogues


def test_the_answer_of_the_majority_is_taken(spoken: Gold, place: dict[str, Any], tmp_path: Path) -> None:
    people = [{"failure_point": "nlu"}, {"failure_point": "asr"}, {"failure_point": "asr"}]
    summary, [dialogue] = imported(spoken, tmp_path, task(place, *people))
    assert dialogue.turns[0].annotation is not None
    assert dialogue.turns[0].annotation.failure_point == "asr"
    assert (summary.answers, summary.turns) == (3, 1)


def test_a_tie_is_left_out_and_counted_and_the_rest_is_taken(
    spoken: Gold, place: dict[str, Any], tmp_path: Path
) -> None:
    people = [{"failure_point": "nlu", "intent": "x"}, {"failure_point": "asr", "intent": "x"}]
    summary, [dialogue] = imported(spoken, tmp_path, task(place, *people))
    assert dialogue.turns[0].annotation is not None
    assert dialogue.turns[0].annotation.failure_point is None
    assert dialogue.turns[0].annotation.intent == "x"
    assert summary.left_out == {Reason.TIE: 1}


def test_what_cannot_be_taken_over_is_counted_with_its_reason(
    spoken: Gold, place: dict[str, Any], tmp_path: Path
) -> None:
    right = {"failure_point": "asr"}
    summary, _ = imported(
        spoken,
        tmp_path,
        task(place, right, None),
        task(place),
        task(place, {"failure_point": "weather"}),
        task(place, {"slots": {"start": 0, "end": 999, "labels": ["artist"]}}),
        task(place, {"other_slots": "the weeknd"}),
        {"data": {"text": "of another project"}, "annotations": []},
        task(place, right, turn_index=77),
        task(place, right, dialogue_id="another"),
        task(place, right, text="it was something else"),
    )
    assert summary.left_out == {
        Reason.SKIPPED: 1,
        Reason.UNANSWERED: 1,
        Reason.MALFORMED: 4,
        Reason.UNKNOWN_TURN: 2,
        Reason.CHANGED_TEXT: 1,
    }


def test_nobody_spoke_is_an_empty_transcript(spoken: Gold, place: dict[str, Any], tmp_path: Path) -> None:
    _, [dialogue] = imported(spoken, tmp_path, task(place, {"failure_point": "wake"}))
    assert dialogue.turns[0].annotation is not None
    assert dialogue.turns[0].annotation.transcript == ""


def test_another_intent_and_another_slot_can_be_written_down(
    spoken: Gold, place: dict[str, Any], tmp_path: Path
) -> None:
    given = {"intent": "play_music", "other_intent": "buy_music", "other_slots": "artist = The Weeknd\nprice=low"}
    _, [dialogue] = imported(spoken, tmp_path, task(place, given))
    assert dialogue.turns[0].annotation is not None
    assert dialogue.turns[0].annotation.intent == "buy_music"
    assert slots(dialogue.turns[0].annotation.slots) == [("artist", "The Weeknd", -1, -1), ("price", "low", -1, -1)]


def test_partly_annotated_logs_can_be_evaluated(
    spoken: Gold, place: dict[str, Any], tmp_path: Path, tiny_model_dir: Path
) -> None:
    imported(spoken, tmp_path, task(place, {"failure_point": "asr", "intent": "play_music", "success": "no"}))
    logs = ["--input", str(tmp_path / "annotated.jsonl.gz"), "--part", "all", "--model", str(tiny_model_dir)]
    evaluation = evaluate.run([*logs, "--output", str(tmp_path / "evaluation"), "--resamples", "10"])
    questions = {each.label: each.questions for each in evaluation.scores if each.slice_by is None}
    assert {questions[name] for name in ("failure_point", "intent", "success")} == {1}


@pytest.mark.parametrize(
    ("tool", "content", "sentence"),
    [
        ("label-studio", "{", "export the project in the format JSON"),
        ("label-studio", '[{"id": 1, "failure_point": "asr"}]', "has no submitted answer"),
        ("argilla", '{"a": 1}', "to_list"),
        ("argilla", '[{"id": "1", "fields": {}, "responses": {}}]', "does not say which responses were submitted"),
    ],
)
def test_a_file_in_another_form_is_refused_with_what_to_do(
    tool: str, content: str, sentence: str, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text(content)
    with pytest.raises(UserError, match=sentence):
        import_annotations.run(
            ["--from", tool, "--input", str(answers), "--labels", "x", "--output", str(tmp_path / "a.jsonl")]
        )


def test_argilla_counts_discarded_responses_and_drafts(spoken: Gold, place: dict[str, Any], tmp_path: Path) -> None:
    record = {
        **place,
        "spoken": "yes",
        "failure_point.responses": ["asr", "nlu", "nlu"],
        "failure_point.responses.users": ["a", "b", "c"],
        "failure_point.responses.status": ["submitted", "discarded", "draft"],
    }
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps([record]))
    output = str(tmp_path / "annotated.jsonl")
    summary = import_annotations.run(
        ["--from", "argilla", "--input", str(answers), "--labels", str(spoken.labels), "--output", output]
    )
    assert summary.annotated == {Question.FAILURE_POINT: 1, Question.SLOTS: 1}
    assert summary.left_out == {Reason.SKIPPED: 1, Reason.UNANSWERED: 1}


@pytest.mark.parametrize("output", ["annotated.json", "gs://bucket/annotated.jsonl"])
def test_an_output_that_cannot_be_written_is_a_mistake(output: str) -> None:
    with pytest.raises(UserError, match="--output"):
        import_annotations.parse(["--from", "argilla", "--input", "x", "--labels", "x", "--output", output])
