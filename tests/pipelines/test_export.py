"""What `faultline export` chooses, and what it shows of it."""

from __future__ import annotations

import errno
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pipelines import export
from pipelines.annotation import argilla, label_studio
from pipelines.annotation.selection import Choice, choose, quotas
from pipelines.annotation.tasks import MEANINGS, Strategy, shown
from pipelines.errors import RunFailed, UserError
from pipelines.export import Tool
from pipelines.labelled import VIEWS
from schemas.log import FailurePoint

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def turn(dialogue_id: str, index: int, text: str | None, point: str = "correct", **more: Any) -> dict[str, Any]:
    """A row of `turns`, of which the model is sure."""
    sure = {each.value: 0.9 if each == point else 0.02 for each in FailurePoint}
    return {
        "dataset": "d",
        "dialogue_id": dialogue_id,
        "turn_index": index,
        "text": text,
        "failure_point": point,
        "failure_point_confidence": 0.9,
        "failure_point_probabilities": sure,
        "defect_probability": 1 - sure["correct"],
        "intent": "play_music",
        "intent_confidence": 0.95,
        "feedback_signals": [],
        "abstained": [],
        **more,
    }


def chosen(turns: list[dict[str, Any]], number: int, *strategies: Strategy, success: bool = True) -> Choice:
    ids = sorted({row["dialogue_id"] for row in turns})
    dialogues = [{"dataset": "d", "dialogue_id": name, "success": success} for name in ids]
    with duckdb.connect() as connection:
        for name, rows in {"turns": turns, "dialogues": dialogues}.items():
            schema = pa.schema([field.with_nullable(True) for field in VIEWS[name]])
            connection.register("rows", pa.Table.from_pylist(rows, schema=schema))
            connection.execute(f"CREATE TABLE {name} AS FROM rows")
        return choose(connection, number, dict.fromkeys(strategies, 1))


def places(choice: Choice) -> list[tuple[str, int]]:
    return [(each.turn.dialogue_id, each.turn.turn_index) for each in choice.turns]


def test_the_turn_whose_failure_points_are_closest_comes_first() -> None:
    close = {"correct": 0.4, "wake": 0.0, "asr": 0.15, "nlu": 0.39, "er": 0.05, "result": 0.01}
    less = {**close, "correct": 0.5, "nlu": 0.29}
    rows = [
        turn("sure", 0, "play some jazz"),
        turn("less", 0, "turn the lights off", failure_point_probabilities=less),
        turn("close", 0, "what is the weather", failure_point_probabilities=close),
    ]
    choice = chosen(rows, 3, Strategy.UNCERTAIN)
    assert places(choice) == [("close", 0), ("less", 0)]
    assert "correct 0.40 or nlu 0.39" in choice.turns[0].turn.why


def test_a_label_that_the_model_abstains_from_is_uncertain() -> None:
    choice = chosen([turn("a", 0, "play some jazz", abstained=["intent"])], 1, Strategy.UNCERTAIN)
    assert "abstains from intent" in choice.turns[0].turn.why


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({}, {"rephrase_of": 0}, "turn 1 asks for the same again"),
        ({}, {"feedback_signals": ["correction"]}, "the user then corrects it"),
        ({}, {"feedback_signals": ["give_up"]}, "the user then gives up"),
        ({"feedback_signals": ["negative"]}, {}, "rated it as bad"),
        ({"failure_point": "nlu", "feedback_signals": ["positive"]}, {}, "rated it as good"),
    ],
)
def test_a_label_that_the_feedback_contradicts_is_chosen(
    first: dict[str, Any], second: dict[str, Any], why: str
) -> None:
    rows = [turn("a", 0, "play some jazz", **first), turn("a", 1, "the other one", **second), turn("b", 0, "thanks")]
    choice = chosen(rows, 3, Strategy.DISAGREEING)
    assert places(choice) == [("a", 0)]
    assert why in choice.turns[0].turn.why


def test_a_failure_that_the_user_answers_with_a_rephrase_is_no_disagreement() -> None:
    rows = [turn("a", 0, "play some jazz", "asr"), turn("a", 1, "play jazz", rephrase_of=0)]
    assert not chosen(rows, 2, Strategy.DISAGREEING).turns


def test_a_survey_that_contradicts_the_success_asks_for_the_most_doubtful_turn() -> None:
    rows = [
        turn("a", 0, "play some jazz", defect_probability=0.4),
        turn("a", 1, "thanks", feedback_signals=["survey_failure"]),
    ]
    assert places(chosen(rows, 2, Strategy.DISAGREEING)) == [("a", 0)]
    assert not chosen(rows, 2, Strategy.DISAGREEING, success=False).turns


def test_a_request_unlike_all_others_is_new() -> None:
    known = [turn(f"k{number}", 0, f"play some jazz by artist {number}") for number in range(20)]
    choice = chosen([*known, turn("n", 0, "book me a haircut", intent_confidence=0.2)], 2, Strategy.NEW)
    assert places(choice) == [("n", 0)]


def test_copies_of_one_sentence_are_chosen_once_and_random_turns_all_the_same() -> None:
    rows = [turn(f"{number:02}", 0, "Play some  jazz", abstained=["intent"]) for number in range(50)]
    assert len(chosen(rows, 10, Strategy.UNCERTAIN).turns) == 1
    assert len(chosen(rows, 10, Strategy.RANDOM).turns) == 10


def test_what_one_strategy_cannot_fill_goes_to_the_others_and_no_turn_is_chosen_twice() -> None:
    rows = [turn("a", number, text, abstained=["intent"]) for number, text in enumerate(["jazz", "lights", "weather"])]
    choice = chosen(rows, 3, Strategy.UNCERTAIN, Strategy.DISAGREEING)
    assert sorted(places(choice)) == [("a", 0), ("a", 1), ("a", 2)]


def test_a_turn_whose_text_is_not_known_is_not_chosen() -> None:
    assert not chosen([turn("a", 0, None, abstained=["intent"])], 1, *Strategy).turns


def test_the_shares_make_up_the_number() -> None:
    shares = {Strategy.UNCERTAIN: 4.0, Strategy.DISAGREEING: 3.0, Strategy.NEW: 2.0, Strategy.RANDOM: 1.0}
    assert quotas(200, shares) == dict(zip(Strategy, (80, 60, 40, 20), strict=True))
    assert sum(quotas(7, shares).values()) == 7


def test_a_text_is_shown_with_a_character_for_a_character() -> None:
    assert shown("hi 👋\nyou") == "hi □ you"
    assert shown("") == shown(" ") != ""


def test_the_failure_points_mean_what_the_readme_says() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README.partition("| failure point | meaning |")[2], re.M)[:6])
    assert {point: meaning.replace("`", "") for point, meaning in rows.items()} == MEANINGS


# The job


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, labelled_output: Any) -> Iterator[dict[Tool, Path]]:
    folders = {tool: tmp_path_factory.mktemp("export") / tool for tool in Tool}
    for tool, folder in folders.items():
        export.run(["--labels", str(labelled_output.labels), "--to", tool, "--output", str(folder), "--number", "99"])
    return folders


def test_a_task_shows_the_whole_dialogue_and_what_the_assistant_made_of_the_turn(exported: dict[Tool, Path]) -> None:
    tasks = json.loads((exported[Tool.LABEL_STUDIO] / label_studio.TASKS).read_bytes())
    data = next(task["data"] for task in tasks if task["data"]["text"] == "play jazz")
    assert data["dialogue"] == [
        {"speaker": "▶ user", "text": "play jazz"},
        {"speaker": "assistant", "text": "Here is jazz."},
        {"speaker": "user", "text": "stop"},
    ]
    assert "heard: “play jazz” 0.60, “pay jazz” 0.30" in data["system"]
    assert "understood: music / play_music (genre = jazz) 0.90" in data["system"]


def test_the_turns_of_a_dialogue_follow_one_another(exported: dict[Tool, Path]) -> None:
    records = json.loads((exported[Tool.ARGILLA] / argilla.RECORDS).read_bytes())
    of = [(record["metadata"]["dataset"], record["metadata"]["dialogue_id"]) for record in records]
    assert len(of) > len(set(of)) == sum(a != b for a, b in zip(of, [None, *of], strict=False))


def test_an_output_that_holds_something_is_refused(exported: dict[Tool, Path], labelled_output: Any) -> None:
    folder = exported[Tool.ARGILLA]
    with pytest.raises(UserError, match="name a new folder"):
        export.run(["--labels", str(labelled_output.labels), "--to", "argilla", "--output", str(folder)])


def test_an_output_that_cannot_be_written_to_is_told_before_the_turns_are_chosen(
    tmp_path: Path, labelled_output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_permission(**_: Any) -> Any:
        # Tests may be run by root, who may write everywhere.
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_permission)
    monkeypatch.setattr(export, "choose", lambda *_: pytest.fail("chosen in vain"))
    with pytest.raises(UserError, match=r"Cannot write to --output .* \(Permission denied\)"):
        export.run(["--labels", str(labelled_output.labels), "--to", "argilla", "--output", str(tmp_path)])


def test_a_full_disk_leaves_no_half_of_an_export(
    tmp_path: Path, labelled_output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tasks: Any, form: Any, folder: Path) -> list[Path]:
        (folder / "config.xml").write_text("<View")
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["--labels", str(labelled_output.labels), "--to", "label-studio", "--output", str(tmp_path / "tasks")]
    with monkeypatch.context() as patched:
        patched.setitem(export._WRITERS, Tool.LABEL_STUDIO, full)
        with pytest.raises(RunFailed, match=r"No space left on device\): make room there"):
            export.run(command)
    assert not list((tmp_path / "tasks").iterdir())
    assert export.run(command).files[0].is_file()


@pytest.mark.parametrize("mix", ["sure", "uncertain=0", "uncertain=x", "", "uncertain,,new"])
def test_a_mix_that_is_none_is_a_mistake(mix: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--strategy has"):
        export.parse(["--labels", "x", "--to", "argilla", "--output", str(tmp_path), "--strategy", mix])
