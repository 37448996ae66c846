"""What is asked of the labels, and the whole job on the demo logs with a model that knows nothing."""

from __future__ import annotations

import copy
import errno
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from encoders.features import NUMBERS
from pipelines import evaluate, own_turn
from pipelines.baselines import AsrThreshold, GradientBoosting, live_frames
from pipelines.errors import RunFailed, UserError
from pipelines.evaluate import EVALUATION, MISTAKES, parse, run
from pipelines.evaluation import Evaluation, Graded, Score, coverages
from pipelines.logs import read_logs
from pipelines.scoring import (
    CORRECT,
    FailurePoints,
    Frame,
    Ratings,
    Scored,
    act_slot_values,
    exact_slots,
    goals_of_success,
    labelled_goal,
    score_agreement,
    score_failure_points,
    score_goal_boundaries,
    score_intents,
    score_items,
    score_people,
    score_rephrases,
    slot_spans,
    success_probability,
)
from schemas.labels import DialogueLabels, GoalLabels, TurnLabels
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    FailurePoint,
    GoalAnnotation,
    NluHypothesis,
    Slot,
    Turn,
    TurnAnnotation,
)

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"


def dialogue(*annotations: TurnAnnotation, goals: list[GoalAnnotation] | None = None) -> Dialogue:
    turns = [Turn(text="play a song", annotation=each) for each in annotations]
    return Dialogue(dialogue_id="d", turns=turns, annotation=DialogueAnnotation(goals=goals))


def labels(
    goals: Sequence[int],
    success: Sequence[tuple[bool, float]] | None = None,
    rephrase_of: Sequence[int | None] | None = None,
) -> DialogueLabels:
    """Labels of a dialogue whose turns belong to these goals."""
    turns = [
        TurnLabels(
            dialogue_id="d",
            turn_index=index,
            goal_id=f"d#{goal}",
            is_goal_start=goal not in goals[:index],
            intent=None,
            intent_confidence=None,
            slots=[],
            failure_point=FailurePoint.CORRECT,
            failure_point_confidence=1.0,
            failure_point_probabilities={},
            defect_probability=0.0,
            rephrase_of=rephrase_of[index] if rephrase_of else None,
            feedback_signals=[],
            abstained=[],
        )
        for index, goal in enumerate(goals)
    ]
    numbers = sorted(set(goals))
    decided = success or [(True, 1.0)] * len(numbers)
    goal_labels = [
        GoalLabels(
            dialogue_id="d",
            goal_id=f"d#{number}",
            turn_indexes=[index for index, goal in enumerate(goals) if goal == number],
            intent=None,
            success=reached,
            success_confidence=confidence,
            failure_point=FailurePoint.CORRECT,
            failure_turn=None,
        )
        for number, (reached, confidence) in zip(numbers, decided, strict=True)
    ]
    return DialogueLabels(
        dialogue_id="d",
        turn_count=len(goals),
        goal_count=len(goal_labels),
        defect_count=0,
        success=True,
        success_confidence=1.0,
        turns=turns,
        goals=goal_labels,
    )


def value(scored: Scored | None, metric: str) -> float:
    assert scored is not None
    return scored.estimates[metric].value


# What is asked


def test_a_return_to_an_earlier_goal_is_a_boundary_that_no_goal_start_finds() -> None:
    logs = [dialogue(*(TurnAnnotation(goal_id=goal) for goal in "ABBA"))]
    scored = score_goal_boundaries(logs, [labels([0, 1, 1, 0])], 5)
    assert value(scored["goal_boundary"], "recall") == 0.5
    assert value(scored["goal_boundary"], "precision") == 1
    assert value(scored["goal_change"], "f1") == 1


def test_the_first_turn_is_no_boundary() -> None:
    scored = score_goal_boundaries([dialogue(*(TurnAnnotation(goal_id="A"),) * 3)], [labels([0, 0, 0])], 5)
    assert np.isnan(value(scored["goal_boundary"], "f1"))
    assert scored["goal_boundary"] is not None
    assert scored["goal_boundary"].questions == 2


def test_turns_without_an_annotated_goal_are_not_asked() -> None:
    logs = [dialogue(TurnAnnotation(goal_id="A"), TurnAnnotation(), TurnAnnotation(goal_id="B"))]
    assert score_goal_boundaries(logs, [labels([0, 1, 2])], 5)["goal_boundary"] is None


def test_slots_are_compared_by_name_and_value_in_any_case() -> None:
    truth = TurnAnnotation(slots=[Slot(name="artist", value="The Weeknd"), Slot(name="song", value="hurt")])
    said = Frame(None, [Slot(name="artist", value="the weeknd"), Slot(name="genre", value="hurt")])
    scored = score_items([dialogue(truth)], [[said]], exact_slots, 5)
    assert [value(scored, name) for name in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]


def test_spans_are_compared_by_place_and_only_where_there_is_one() -> None:
    truth = TurnAnnotation(
        slots=[Slot(name="artist", value="x", start=0, end=4), Slot(name="requested", value="phone")]
    )
    said = Frame(None, [Slot(name="artist", value="y", start=0, end=4)])
    assert value(score_items([dialogue(truth)], [[said]], slot_spans, 5), "f1") == 1


def test_of_slots_it_is_said_how_many_are_trusted_and_right() -> None:
    truth = TurnAnnotation(slots=[Slot(name="artist", value="abba")])
    right, wrong = (Frame(None, [Slot(name="artist", value=each)]) for each in ("Abba", "adele"))
    frames = [[right, right, wrong, wrong]]
    scored = score_items([dialogue(*[truth] * 4)], frames, exact_slots, 5, [[False, True, False, True]])
    assert [value(scored, name) for name in ("precision", "trusted", "trusted_precision")] == [0.5, 0.5, 0.5]
    scored = score_items([dialogue(*[truth] * 4)], frames, exact_slots, 5, [[False, False, True, True]])
    assert [value(scored, name) for name in ("trusted", "trusted_precision")] == [0.5, 1.0]


def test_a_turn_whose_slots_are_not_annotated_is_not_asked() -> None:
    said = Frame(None, [Slot(name="artist", value="x")])
    assert score_items([dialogue(TurnAnnotation(intent="play"))], [[said]], exact_slots, 5) is None


def test_act_slot_values_are_the_slots_and_the_acts_without_slots() -> None:
    frame = Frame("inform+reqalts+affirm", [Slot(name="food", value="Thai")])
    assert act_slot_values(frame) == {("food", "thai"), ("affirm+reqalts",)}
    assert act_slot_values(Frame("none", [])) == set()


def test_an_intent_that_the_model_does_not_give_is_wrong() -> None:
    logs = [dialogue(TurnAnnotation(intent="play"), TurnAnnotation(intent="stop"), TurnAnnotation())]
    frames = [[Frame("play", []), Frame(None, []), Frame("play", [])]]
    scored = score_intents(logs, frames, 5, abstained=[[False, True, False]])
    assert value(scored, "accuracy") == 0.5
    assert value(scored, "trusted") == 0.5
    assert value(scored, "trusted_accuracy") == 1


def test_a_rephrase_follows_from_the_annotated_failure() -> None:
    slots = [Slot(name="food", value="thai")]
    failed = TurnAnnotation(intent="inform", slots=slots, failure_point=FailurePoint.ASR)
    again = TurnAnnotation(intent="inform", slots=slots, failure_point=FailurePoint.CORRECT)
    scored = score_rephrases([dialogue(failed, again)], [labels([0, 0], rephrase_of=[None, 0])], 5)
    assert value(scored, "f1") == 1
    assert scored is not None
    assert scored.questions == 1


def test_a_goals_success_is_that_of_the_labelled_goal_which_shares_most_turns() -> None:
    annotations = [TurnAnnotation(goal_id=goal) for goal in "AAAB"]
    logs = [dialogue(*annotations, goals=[GoalAnnotation(goal_id="A", success=True), GoalAnnotation(goal_id="B")])]
    (goal,) = goals_of_success(logs)
    labelled = labels([0, 1, 1, 1], success=[(True, 0.6), (False, 0.9)])
    assert success_probability(labelled_goal(labelled, goal.turns)) == pytest.approx(0.1)


def test_a_defect_is_any_failure_point_but_correct() -> None:
    points = [FailurePoint.CORRECT, FailurePoint.ASR, FailurePoint.NLU, FailurePoint.CORRECT]
    asked = FailurePoints.of([dialogue(*(TurnAnnotation(failure_point=point) for point in points))])
    said = np.array([[0.9, 0, 0.1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0.6, 0, 0, 0.4, 0, 0], [0.2, 0.8, 0, 0, 0, 0]])
    decided = np.array([0, 3, 0, 1])
    scored = score_failure_points(asked, decided, said, ["correct", "asr", "nlu"], 5)
    assert value(scored, "accuracy") == 0.25
    assert value(scored, "defect_f1") == 0.5
    # By defect probability: the second turn (a defect), the fourth (none), the third (a defect).
    assert value(scored, "defect_average_precision") == pytest.approx((1 + 2 / 3) / 2)


def test_coverage_of_defects_is_of_the_defects() -> None:
    graded = Graded(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]))
    at_80 = {label: coverages(label, graded)[0] for label in ("defect", "failure_point")}
    assert (at_80["defect"].threshold, at_80["defect"].coverage) == (0.9, 0.5)
    assert at_80["failure_point"].coverage == 0.25


# Agreement


def rated(*ratings: list[float] | None) -> Ratings:
    return Ratings.of_turns([dialogue(*(TurnAnnotation(ratings=each) for each in ratings))])


def test_a_model_is_asked_what_a_person_is_the_mean_of_the_others() -> None:
    judged = rated([1, 2, 3], [2, 3, 1], [3, 1, 2], [4, 4, 4])
    # Without the first person the means are 2.5, 2, 1.5, 4: ranks of 3, 2, 1, 4 beside 1, 2, 3, 4.
    assert value(score_people(judged, 5), "spearman_with_others") == pytest.approx(0.2)
    scored = score_agreement(judged, [[0.1, 0.2, 0.3, 0.9]], 5)
    assert value(scored, "spearman") == pytest.approx(np.sqrt(0.6))
    assert value(scored, "spearman_with_others") == pytest.approx((0.2 + 0.8 + 0.8) / 3)


def test_a_turn_that_one_person_rated_is_not_asked() -> None:
    judged = rated([1, 2], None, [5], [], [2, 3])
    assert judged.indexes == [0, 4]
    assert score_people(rated([5], None), 5) is None
    assert score_agreement(rated([5], None), [[0.5, 0.5]], 5) is None


def test_a_dialogue_may_have_fewer_people_than_another() -> None:
    judged = Ratings.of_dialogues(
        [
            Dialogue(dialogue_id="d", turns=[], annotation=DialogueAnnotation(ratings=each))
            for each in ([1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0])
        ]
    )
    assert value(score_people(judged, 5), "spearman_with_others") == pytest.approx(1)
    assert value(score_agreement(judged, [[0.3], [0.2], [0.1]], 5), "spearman") == pytest.approx(-1)


# Baselines


def rows(scores: Sequence[float]) -> Any:
    features = np.full((len(scores), len(NUMBERS) + 1), np.nan, dtype=np.float32)
    features[:, NUMBERS.index("asr_score")] = scores
    features[:, -1] = 3
    return features


def test_the_asr_threshold_is_the_one_with_the_best_f1() -> None:
    baseline = AsrThreshold.fit(rows([0.9, 0.8, 0.3, 0.2]), np.array([False, False, True, True]))
    assert baseline is not None
    assert baseline.find(rows([0.5, 0.31, 0.3, 0.1, np.nan])).tolist() == [False, False, True, True, True]


def test_without_scores_there_is_no_asr_threshold() -> None:
    assert AsrThreshold.fit(rows([np.nan, np.nan]), np.array([True, False])) is None


def test_gradient_boosting_learns_and_leaves_out_what_does_not_vary() -> None:
    features = rows([0.9] * 60 + [0.1] * 60)
    boosting = GradientBoosting.fit(features, np.array([CORRECT] * 60 + [2] * 60))
    assert boosting is not None
    probabilities = boosting.probabilities(rows([0.95, 0.05]))
    assert probabilities.shape == (2, 6)
    assert probabilities.argmax(axis=1).tolist() == [CORRECT, 2]


def test_gradient_boosting_needs_two_answers() -> None:
    assert GradientBoosting.fit(rows([0.1, 0.9]), np.array([CORRECT, CORRECT])) is None


def test_the_assistants_own_outputs_are_its_first_hypotheses() -> None:
    turns = [Turn(text="x", nlu=[NluHypothesis(intent="play"), NluHypothesis(intent="stop")]), Turn(text="y")]
    assert live_frames([Dialogue(dialogue_id="d", turns=turns)]) == [[Frame("play", []), Frame(None, [])]]
    assert live_frames([Dialogue(dialogue_id="d", turns=turns[1:])]) is None


# The job


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    options = ["--input", str(LOGS), "--model", str(tiny_model_dir), "--output", str(folder)]
    run([*options, "--baselines", "--own-turn", str(checkpoint), "--resamples", "20", "--threads", "1"])
    return folder


@pytest.fixture(scope="module")
def evaluation(output: Path) -> Evaluation:
    return msgspec.json.decode((output / EVALUATION).read_bytes(), type=Evaluation)


def find(evaluation: Evaluation, **wanted: object) -> list[Score]:
    return [each for each in evaluation.scores if all(getattr(each, name) == of for name, of in wanted.items())]


@pytest.mark.slow
def test_every_annotated_label_of_the_logs_is_scored(evaluation: Evaluation) -> None:
    assert {each.label for each in find(evaluation, predictor="model")} == {
        "failure_point",
        "success",
        "goal_success",
        "goal_boundary",
        "goal_change",
        "intent",
        "slots",
        "slot_spans",
        "rephrase",
    }
    assert {each.predictor for each in evaluation.scores} == {
        "model",
        "asr_threshold",
        "gradient_boosting",
        "live_assistant",
        "majority",
        "own_turn",
    }


@pytest.mark.slow
def test_scores_and_confusion_tell_of_the_same_turns(evaluation: Evaluation) -> None:
    (accuracy,) = find(evaluation, label="failure_point", predictor="model", metric="accuracy")
    table = np.array(evaluation.confusion)
    assert table.sum() == accuracy.questions == evaluation.turns
    assert accuracy.value == pytest.approx(np.trace(table) / table.sum())


@pytest.mark.slow
def test_there_are_as_many_mistakes_as_the_scores_say(output: Path, evaluation: Evaluation) -> None:
    found = Counter(pq.read_table(output / MISTAKES)["label"].to_pylist())
    for label in ("failure_point", "success", "goal_success", "intent"):
        (accuracy,) = find(evaluation, label=label, predictor="model", metric="accuracy")
        assert accuracy.value is not None
        assert found[label] == round(accuracy.questions * (1 - accuracy.value)) > 0, label


@pytest.mark.slow
def test_slices_add_up_to_all_turns(evaluation: Evaluation) -> None:
    slices = find(evaluation, predictor="model", metric="defect_f1", slice_by="device")
    assert len(slices) > 1
    assert sum(each.questions for each in slices) == evaluation.turns


@pytest.mark.parametrize(("services", "parts"), [(("music", "travel"), 2), (("music",), 0)])
def test_intents_and_slots_are_scored_by_whether_their_service_is_known(
    services: tuple[str, ...], parts: int, tmp_path: Path, tiny_model_dir: Path
) -> None:
    annotations = [TurnAnnotation(domain=each, intent="play_music", slots=[]) for each in (*services, services[0])]
    log = tmp_path / "log.jsonl"
    log.write_bytes(msgspec.json.encode(dialogue(*annotations)))
    options = ["--model", str(tiny_model_dir), "--part", "all", "--resamples", "20", "--threads", "1"]
    evaluation = run(["--input", str(log), "--output", str(tmp_path / "out"), *options])
    asked = {
        each.slice: each.questions for each in find(evaluation, label="intent", metric="accuracy", slice_by="service")
    }
    assert asked == ({"seen in training": 2, "not seen in training": 1} if parts else {})


def test_ratings_alone_can_be_evaluated(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    annotations = [
        TurnAnnotation(ratings=[1, 2, 1]),
        TurnAnnotation(ratings=[3, 3, 2]),
        TurnAnnotation(ratings=[2, 2, 4]),
    ]
    rated = dialogue(*annotations)
    assert rated.annotation is not None
    rated.annotation.ratings = [4, 5]
    log.write_bytes(msgspec.json.encode(rated))
    options = ["--model", str(tiny_model_dir), "--part", "all", "--resamples", "20", "--threads", "1"]
    evaluation = run(["--input", str(log), "--output", str(tmp_path / "out"), *options])
    assert [(each.label, each.metric, each.predictor, each.questions) for each in evaluation.scores] == [
        ("agreement", "spearman", "model", 3),
        ("agreement", "spearman_with_others", "model", 3),
        ("agreement", "spearman_with_others", "people", 3),
        ("dialogue_agreement", "spearman", "model", 1),
        ("dialogue_agreement", "spearman_with_others", "model", 1),
        ("dialogue_agreement", "spearman_with_others", "people", 1),
    ]
    assert evaluation.scores[2].value is not None
    assert evaluation.scores[-1].value is None, "one dialogue has no ranks"
    assert "spearman_with_others" in capsys.readouterr().out


@pytest.mark.slow
def test_the_pictures_are_there(output: Path) -> None:
    for name in ("confusion.png", "reliability.png", "coverage.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_pictures_of_another_evaluation_go(tmp_path: Path, tiny_model_dir: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = ["--model", str(tiny_model_dir), "--part", "all", "--resamples", "20", "--threads", "1"]
    command = ["--input", str(log), "--output", str(tmp_path / "out"), *options]
    log.write_text('{"dialogue_id": "a", "turns": [{"text": "play", "annotation": {"failure_point": "nlu"}}]}')
    run(command)
    assert (tmp_path / "out" / "confusion.png").exists()
    log.write_text('{"dialogue_id": "a", "turns": [{"text": "play", "annotation": {"intent": "play"}}]}')
    run(command)
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.slow
def test_the_run_is_in_mlflow(output: Path, evaluation: Evaluation) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{output / 'mlflow.db'}"
    client = MlflowClient(store, store)
    experiment = client.get_experiment_by_name("faultline-evaluate")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    (score,) = find(evaluation, label="failure_point", predictor="gradient_boosting", metric="macro_f1")
    assert logged.data.metrics["gradient_boosting/failure_point/macro_f1"] == pytest.approx(score.value)
    logged_files = {each.path for each in client.list_artifacts(logged.info.run_id)}
    assert logged_files == {EVALUATION, "confusion.png", "reliability.png", "coverage.png"}, "no words of users"


def mistake(*options: str) -> str:
    with pytest.raises(UserError) as error:
        run(options)
    return str(error.value)


def test_baselines_are_not_scored_on_what_they_learned(tmp_path: Path) -> None:
    said = mistake("--input", str(LOGS), "--output", str(tmp_path), "--part", "all", "--baselines")
    assert "choose --part test" in said


def test_a_baseline_of_single_turns_is_not_scored_on_what_it_learned(tmp_path: Path) -> None:
    said = mistake("--input", str(LOGS), "--output", str(tmp_path), "--part", "train", "--own-turn", "minilm")
    assert "--own-turn is trained on the train part" in said


def test_a_baseline_of_single_turns_starts_from_no_whole_model(tmp_path: Path, tiny_model_dir: Path) -> None:
    options = ["--input", str(LOGS), "--output", str(tmp_path), "--model", str(tiny_model_dir)]
    assert "is a whole model" in mistake(*options, "--own-turn", str(tiny_model_dir))


def test_a_words_encoder_that_is_not_there_is_told_before_the_logs_are_labelled(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_label", lambda *_: pytest.fail("labelled in vain"))
    options = ["--input", str(LOGS), "--output", str(tmp_path / "out"), "--model", str(tiny_model_dir)]
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    assert str(nowhere) in mistake(*options, "--own-turn", str(nowhere))


@pytest.mark.parametrize("mode", ["read-only", "in the way"])
def test_an_output_that_cannot_be_written_to_is_told_before_the_logs_are_labelled(
    mode: str, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_label", lambda *_: pytest.fail("labelled in vain"))
    output = tmp_path / "out"
    if mode == "read-only":
        output.mkdir()
        monkeypatch.setattr(tempfile, "TemporaryFile", no_permission)
    else:
        output.write_text("in the way")
    said = mistake("--input", str(LOGS), "--output", str(output), "--model", str(tiny_model_dir))
    assert said.startswith(f"Cannot write to --output {output} (")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which is a full disk")
def test_a_full_disk_is_told_in_one_sentence(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / MISTAKES).symlink_to("/dev/full")
    options = ["--model", str(tiny_model_dir), "--resamples", "20", "--threads", "1"]
    with pytest.raises(RunFailed, match="make room there") as error:
        run(["--input", str(LOGS), "--output", str(tmp_path), *options])
    assert str(error.value).startswith(f"Cannot write to --output {tmp_path} (No space left")


def no_permission(*_: Any, **__: Any) -> Any:
    # Tests may be run by root, who may write everywhere.
    raise PermissionError(errno.EACCES, "Permission denied")


def test_the_baseline_of_single_turns_sees_no_other_turn(checkpoint: Path) -> None:
    dialogues = list(read_logs([str(LOGS)], "jsonl").dialogues)
    model = own_turn.fit(str(checkpoint), dialogues, Console(quiet=True))
    longest = max(dialogues, key=lambda each: len(each.turns))
    shorter = copy.copy(longest)
    shorter.turns = longest.turns[:2]
    whole, part = own_turn.label(model, [longest, shorter])
    assert len(whole.turns) == len(longest.turns) > 2
    assert whole.turns[:2] == part.turns


def test_an_unknown_failure_point_is_named(tmp_path: Path) -> None:
    said = mistake("--input", str(LOGS), "--output", str(tmp_path), "--failure-points", "correct,asrr")
    assert "'asrr'" in said
    assert "wake" in said


@pytest.mark.parametrize(("name", "said"), [("foo", "Unknown input format 'foo'"), ("turns", "holds single turns")])
def test_a_format_that_cannot_be_evaluated_is_one_sentence_before_anything_is_done(
    name: str, said: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert said in mistake("--input", str(LOGS), "--input-format", name, "--output", str(output))
    assert not output.exists()


def test_the_counted_failure_points_are_in_their_own_order(tmp_path: Path) -> None:
    settings = parse(["--input", "x", "--output", str(tmp_path), "--failure-points", "nlu, correct"])
    assert settings.failure_points == ("correct", "nlu")


def test_logs_without_annotations_are_a_mistake(tmp_path: Path, tiny_model_dir: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"dialogue_id": "d", "turns": [{"text": "hello"}]}) + "\n")
    said = mistake(
        "--input", str(log), "--output", str(tmp_path / "out"), "--model", str(tiny_model_dir), "--part", "all"
    )
    assert said.startswith("Nothing in these logs is annotated")


def test_annotations_of_other_logs_are_a_mistake(tmp_path: Path, tiny_model_dir: Path) -> None:
    log = tmp_path / "log.jsonl"
    shutil.copy(LOGS, log)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"dialogue_id": "elsewhere", "failure_points": ["correct"]}) + "\n")
    options = ["--input", str(log), "--output", str(tmp_path / "out"), "--model", str(tiny_model_dir)]
    assert "names no dialogue of the input" in mistake(*options, "--annotations", str(other))
