"""Whole logs in memory, their parts and their annotations."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import pytest

from pipelines import storage
from pipelines.errors import RunFailed, UserError
from pipelines.logs import Part, annotate, is_annotated, part_of, read_logs, take_surveys
from schemas.log import Dialogue, DialogueAnnotation, DialogueFeedback, FailurePoint, Turn, TurnAnnotation
from schemas.rejects import RejectReason


def _dialogue(name: str, *texts: str, transcript: str | None = None) -> Dialogue:
    turns = [Turn(text=text) for text in texts]
    for turn in turns if transcript else ():
        turn.annotation = TurnAnnotation(transcript=transcript)
    return Dialogue(dialogue_id=name, turns=turns)


def _line(name: str) -> str:
    return json.dumps({"dialogue_id": name, "turns": [{"text": "hi"}]}) + "\n"


def test_all_files_are_read_in_order_and_bad_records_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(_line("a") + "{\n" + _line("b"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((_line("c") + '{"dialogue_id": "d", "turns": []}\n').encode()))
    logs = read_logs([str(tmp_path / "*")], "jsonl")
    assert [dialogue.dialogue_id for dialogue in logs.dialogues] == ["a", "b", "c"]
    assert logs.rejected == {RejectReason.INVALID_JSON: 1, RejectReason.NO_TURNS: 1}


@pytest.mark.parametrize(
    ("name", "message"), [("nosuch", "Unknown input format 'nosuch'"), ("turns", "turns holds single turns: put them")]
)
def test_a_format_that_holds_no_dialogues_is_a_mistake(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_logs([str(tmp_path)], name)


def test_a_pattern_without_files_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\*"):
        read_logs([str(tmp_path / "nothing*")], "jsonl")


@pytest.mark.parametrize("pattern", ["*.jsonl", "./a.jsonl", "~/*.jsonl"])
def test_a_pattern_may_be_relative_to_the_current_folder_or_to_home(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text(_line("a"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [dialogue.dialogue_id for dialogue in read_logs([pattern], "jsonl").dialogues] == ["a"]


def test_logs_of_a_user_that_there_is_not_are_a_mistake() -> None:
    with pytest.raises(UserError, match="No file matches --input ~nobody-here/"):
        read_logs(["~nobody-here/*.jsonl"], "jsonl")


def test_logs_that_cannot_be_read_on_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text(_line("a"))
    opened = []

    def once(path: str) -> BinaryIO:
        if opened:
            raise storage.StoreError("503")
        opened.append(path)
        return Path(path).open("rb")

    monkeypatch.setattr(storage, "open_file", once)
    with pytest.raises(RunFailed, match=r"Cannot read the logs now \(503\)"):
        read_logs([str(tmp_path / "a.jsonl")], "jsonl")


def test_about_seven_in_ten_train_one_validates_and_two_test() -> None:
    parts = Counter(part_of(_dialogue(str(index), "hi", "ho")) for index in range(2_000))
    shares = {part: parts[part] / 2_000 for part in Part}
    assert shares == pytest.approx({Part.TRAIN: 0.7, Part.VALIDATION: 0.1, Part.TEST: 0.2}, abs=0.03)


@pytest.mark.parametrize("transcript", [None, "what was really said"])
def test_one_sentence_is_on_one_side_whoever_says_it(transcript: str | None) -> None:
    texts = [f"heard {index}" for index in range(50)] if transcript else ["hi"] * 50
    parts = {part_of(_dialogue(str(index), text, transcript=transcript)) for index, text in enumerate(texts)}
    assert len(parts) == 1


def test_longer_dialogues_are_divided_by_id_whatever_they_say() -> None:
    assert len({part_of(_dialogue(str(index), "hi", "ho")) for index in range(50)}) == 3


@pytest.mark.parametrize("text", ["", "\ud83d"])
def test_any_text_has_a_part(text: str) -> None:
    assert part_of(_dialogue("a", text)) in Part


@pytest.mark.parametrize("name", ["dialogue_id", "session"])
@pytest.mark.parametrize("compress", [False, True])
def test_annotations_reach_their_dialogues(name: str, compress: bool, tmp_path: Path) -> None:
    content = f'{{"{name}": "b", "failure_points": ["asr", "correct"]}}\n'.encode()
    path = tmp_path / "points.jsonl"
    path.write_bytes(gzip.compress(content) if compress else content)
    dialogues = [_dialogue("a", "hi"), _dialogue("b", "hi", "ho", transcript="hey")]
    assert annotate(dialogues, str(path)) == 1
    assert dialogues[0].turns[0].annotation is None
    annotations = [turn.annotation for turn in dialogues[1].turns]
    assert [each.failure_point for each in annotations if each] == [FailurePoint.ASR, FailurePoint.CORRECT]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"dialogue_id": "a", "failure_points": ["asr", "asr"]}', "has 2 failure points for dialogue a, which has 1"),
        (b'{"dialogue_id": "a", "failure_points": ["wrong"]}', "line 1 is no annotation"),
        (b'{"dialogue_id": "b", "failure_points": []}\n{', "line 2 is no annotation"),
        (b'{"failure_points": ["asr"]}', "line 1 names no dialogue_id"),
        (b"\xff", "line 1 is no annotation"),
        (gzip.compress(b"{}", mtime=0)[:-9], "Cannot read the annotations"),
        (None, "Cannot read the annotations"),
    ],
)
def test_annotations_of_another_form_are_a_mistake(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        annotate([_dialogue("a", "hi")], str(path))
    assert "\n" not in str(raised.value)


def test_annotations_at_an_address_that_is_none_are_a_mistake() -> None:
    with pytest.raises(UserError, match="Cannot read the annotations foo://bar: "):
        annotate([_dialogue("a", "hi")], "foo://bar")


def test_annotations_whose_store_does_not_answer_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def unanswered(path: str) -> BinaryIO:
        raise storage.StoreError("503")

    monkeypatch.setattr(storage, "open_file", unanswered)
    with pytest.raises(RunFailed, match=r"Cannot read the annotations s3://logs/points now \(503\)"):
        annotate([_dialogue("a", "hi")], "s3://logs/points")


def test_a_survey_is_the_annotation_of_a_success_that_has_none() -> None:
    said, annotated, silent = (
        Dialogue(dialogue_id=name, turns=[Turn(text="hi")], feedback=feedback, annotation=annotation)
        for name, feedback, annotation in (
            ("a", DialogueFeedback(success=False), None),
            ("b", DialogueFeedback(success=False), DialogueAnnotation(success=True)),
            ("c", DialogueFeedback(rating=1.0), None),
        )
    )
    take_surveys([said, annotated, silent])
    assert [each.annotation and each.annotation.success for each in (said, annotated, silent)] == [False, True, None]
    assert [is_annotated(each) for each in (said, annotated, silent)] == [True, True, False]


def test_ratings_alone_teach_no_label() -> None:
    turn = Turn(text="hi", annotation=TurnAnnotation(ratings=[1, 2]))
    whole = DialogueAnnotation(ratings=[3, 4])
    assert not is_annotated(Dialogue(dialogue_id="rated", turns=[turn], annotation=whole))
