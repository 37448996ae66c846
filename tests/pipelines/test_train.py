"""`faultline train` as a person runs it: on the demo logs, from a tiny RoBERTa checkpoint."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from labelers.labelling_functions import FUNCTIONS
from labelers.model import Model
from labelers.training import Trainer
from pipelines import training_run
from pipelines.cli import main
from pipelines.logs import read_logs
from pipelines.tracking import resolve_model
from schemas.labels import Label

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"


@pytest.fixture(scope="session")
def command(checkpoint: Path) -> Callable[..., list[str]]:
    def build(output: Path, *more: str) -> list[str]:
        small = ["--init", str(checkpoint), "--width", "16", "--passes", "4", "--threads", "1"]
        return ["train", "--input", str(LOGS), "--output", str(output), *small, *more]

    return build


@pytest.fixture(scope="session")
def trained(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a whole run."""
    output = tmp_path_factory.mktemp("trained")
    assert main(command(output, "--alias", "best")) == 0
    return output


def test_the_model_labels(trained: Path) -> None:
    dialogues = read_logs([str(LOGS)], "jsonl").dialogues
    labelled = Model.load(trained / "model").label(dialogues)
    assert [labels.dialogue_id for labels in labelled] == [dialogue.dialogue_id for dialogue in dialogues]
    turns = [turn for labels in labelled for turn in labels.turns]
    assert all(sum(turn.failure_point_probabilities.values()) == pytest.approx(1, abs=1e-5) for turn in turns)
    logged = [turn for dialogue in dialogues for turn in dialogue.turns]
    known = {turn.annotation.intent for turn in logged if turn.annotation}
    known |= {hypothesis.intent for turn in logged for hypothesis in turn.nlu}
    assert {turn.intent for turn in turns} <= known


def test_a_whole_model_goes_on_learning(trained: Path, tmp_path: Path) -> None:
    before = Model.load(trained / "model")
    command = ["train", "--input", str(LOGS), "--output", str(tmp_path), "--threads", "1"]
    assert main([*command, "--init", str(trained / "model")]) == 0
    after = Model.load(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "training.json").read_text())["init"] == {
        "model_version": before.version,
        "share": 0,
    }
    assert after.config == before.config
    assert after.ontology == before.ontology
    old, new = before.float().state_dict(), after.float().state_dict()
    assert torch.equal(old["failure_point.evidence.numbers.edges"], new["failure_point.evidence.numbers.edges"])
    # A few steps change the words a little; another model's would be others altogether.
    name = "turn_encoder.words.embeddings.word_embeddings.weight"
    assert 0 < (old[name] - new[name]).norm() < 0.2 * old[name].norm()


def test_a_share_of_the_model_it_started_from_is_kept(trained: Path, tmp_path: Path) -> None:
    command = ["train", "--input", str(LOGS), "--threads", "1", "--init", str(trained / "model")]
    weights = [Model.load(trained / "model").float().state_dict()]
    for share in ("0", "0.75"):
        assert main([*command, "--output", str(tmp_path / share), "--init-share", share]) == 0
        record = json.loads((tmp_path / share / "model" / "training.json").read_text())
        assert record["init"]["share"] == float(share)
        weights.append(Model.load(tmp_path / share / "model").float().state_dict())
    # Of what a few steps move by more than it is rounded by, how far on the way it went.
    for name in ("turn_encoder.words.encoder.layer.0.output.dense.bias", "failure_point.evidence.layers.0.0.weight"):
        start, learned, kept = (each[name] for each in weights)
        way = learned - start
        assert float(((kept - start) * way).sum() / (way * way).sum()) == pytest.approx(0.25, abs=0.01)


def test_the_model_is_registered_as_it_is_on_disk(trained: Path) -> None:
    registered = resolve_model("models:/faultline@best", f"sqlite:///{trained / 'mlflow.db'}")
    assert Model.load(registered).version == Model.load(trained / "model").version


def test_the_record_beside_the_model_has_the_recipe_and_no_paths(trained: Path) -> None:
    record = (trained / "model" / "training.json").read_text()
    assert str(trained) not in record
    assert str(LOGS.parent) not in record
    told = json.loads(record)
    assert told["model_version"] == Model.load(trained / "model").version
    assert told["steps"] > 0
    assert told["skipped_steps"] == 0
    assert told["calibration"].keys() == set(Label)


@pytest.fixture(scope="session")
def unannotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same logs as nobody annotated them; some of the users answered a survey."""
    path = tmp_path_factory.mktemp("unannotated") / "logs.jsonl"
    lines = []
    for number, line in enumerate(LOGS.read_text().splitlines()):
        dialogue = json.loads(line)
        dialogue.pop("annotation", None)
        for turn in dialogue["turns"]:
            turn.pop("annotation", None)
        if number % 3:
            dialogue["feedback"] = {"success": number % 3 == 1}
        lines.append(json.dumps(dialogue) + "\n")
    path.write_text("".join(lines))
    return path


def _calibration(model: Model) -> dict[Label, tuple[float, float]]:
    return {label: (float(each.temperature), float(each.threshold)) for label, each in model.labelers.items()}


def test_a_model_goes_on_learning_from_logs_that_nobody_annotated(
    trained: Path, unannotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--input", str(unannotated), "--init", str(trained / "model"), "--threads", "1"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "temperatures and thresholds stay those of the model that this one started from" in said
    before, after = (Model.load(path / "model") for path in (trained, tmp_path))
    assert after.version != before.version
    kept = set(Label) - {Label.SUCCESS}
    assert {label: _calibration(after)[label] for label in kept} == {
        label: _calibration(before)[label] for label in kept
    }
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    # What users said of success in a survey sets the one temperature.
    assert record["calibration"].keys() == {Label.SUCCESS}
    (source,) = record["sources"]
    assert source["feedback"]["turns"] > 20
    assert {each["function"] for each in source["feedback"]["functions"]} == {each.name for each in FUNCTIONS}
    for each in FUNCTIONS:
        assert f" {each.name} " in said


def test_of_many_logs_feedback_says_what_is_a_failure(
    trained: Path, unannotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs.jsonl"
    dialogues = [json.loads(line) for line in unannotated.read_text().splitlines()]
    with logs.open("w") as stream:
        for copy in range(30):
            for dialogue in dialogues:
                stream.write(json.dumps({**dialogue, "dialogue_id": f"{copy}-{dialogue['dialogue_id']}"}) + "\n")
    command = ["train", "--input", str(logs), "--init", str(trained / "model"), "--threads", "1", "--passes", "0.02"]
    assert main([*command, "--output", str(tmp_path / "training")]) == 0
    labeler = Model.load(tmp_path / "training" / "model").failure_point
    temperature, decision = float(labeler.temperature), float(labeler.decision)
    said = " ".join(capsys.readouterr().err.split())
    assert f"feedback sets the temperature of failure points, to {temperature:.2f}," in said
    assert f"a turn is one from a defect probability of {decision:.2f} on." in said
    assert "no annotated goal, intent, slots, failure_point, rephrase" in said
    record = json.loads((tmp_path / "training" / "model" / "training.json").read_text())
    assert record["calibration"]["failure_point"] == {"temperature": temperature, "decision": decision}


def test_a_new_model_can_be_made_from_feedback_alone(
    command: Callable[..., list[str]], unannotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(unannotated) if each == str(LOGS) else each for each in command(tmp_path)]
    assert main(arguments) == 0
    assert "the model never abstains from these" in " ".join(capsys.readouterr().err.split())
    assert Model.load(tmp_path / "model").label(read_logs([str(LOGS)], "jsonl").dialogues)


def test_without_feedback_and_annotation_there_is_nothing_to_learn_from(
    command: Callable[..., list[str]], unannotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(unannotated) if each == str(LOGS) else each for each in command(tmp_path)]
    assert main([*arguments, "--feedback-weight", "0"]) == 2
    said = capsys.readouterr().err
    assert "There is nothing to learn from: no dialogue of the inputs is annotated" in said
    assert "Traceback" not in said


def test_a_finished_run_leaves_no_checkpoint(trained: Path) -> None:
    assert not (trained / "checkpoint.pt").exists()


def test_a_killed_run_goes_on_to_the_same_model(
    trained: Path, command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Trainer._one

    def killed(trainer: Trainer) -> dict[Label, float]:
        if trainer.step == 2:
            raise KeyboardInterrupt
        return one(trainer)

    with monkeypatch.context() as context:
        context.setattr(training_run, "CHECKPOINT_SECONDS", -1.0)
        context.setattr(Trainer, "_one", killed)
        assert main(command(tmp_path)) == 130
    assert (tmp_path / "checkpoint.pt").exists()
    seen = []
    monkeypatch.setattr(Trainer, "_one", lambda trainer: (seen.append(trainer.step), one(trainer))[1])
    assert main(command(tmp_path)) == 0
    assert seen[0] == 2
    assert Model.load(tmp_path / "model").version == Model.load(trained / "model").version


def test_a_checkpoint_of_other_options_is_not_gone_on_from(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(trainer: Trainer) -> dict[Label, float]:
        seen.append(trainer.step)
        if len(seen) > 2:
            raise KeyboardInterrupt
        return one(trainer)

    one = Trainer._one
    monkeypatch.setattr(training_run, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(Trainer, "_one", stop)
    assert main(command(tmp_path)) == 130
    assert main(command(tmp_path, "--seed", "2")) == 130
    assert main(command(tmp_path, "--seed", "2", "--feedback-weight", "2")) == 130
    assert seen == [0, 1, 2, 0, 0]


@pytest.mark.slow
def test_a_run_that_cannot_save_its_model_leaves_the_former_one(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(tmp_path)) == 0
    (tmp_path / "model" / "NOTES.md").write_text("ours")
    former = Model.load(tmp_path / "model").version
    capsys.readouterr()

    def full(model: Model, folder: Path) -> str:
        (folder / "config.json").write_text("half of a")
        raise OSError(errno.ENOSPC, "No space left on device")

    again = command(tmp_path, "--seed", "2")
    with monkeypatch.context() as patched:
        patched.setattr(Model, "save", full)
        assert main(again) == 1
    assert f"Cannot write to --output {tmp_path} (No space left on device): make room" in capsys.readouterr().err
    assert Model.load(tmp_path / "model").version == former
    assert main(again) == 0
    assert Model.load(tmp_path / "model").version != former
    assert (tmp_path / "model" / "NOTES.md").read_text() == "ours"
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_second_training_into_one_output_is_refused(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with training_run.alone(str(tmp_path)):
        assert main(command(tmp_path)) == 2
    assert "Another training works in" in capsys.readouterr().err


class _Bomb:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 0",)


@pytest.mark.parametrize(
    "content", [b"junk", b"", pickle.dumps(_Bomb()), pickle.dumps([1, 2])], ids=["junk", "nothing", "code", "list"]
)
def test_a_checkpoint_that_is_none_is_one_sentence(
    content: bytes, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    assert main(command(tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.endswith("checkpoint.pt is damaged, or no checkpoint of this job: delete it to start afresh.\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input-format", "nosuch"], "Unknown input format 'nosuch'"),
        (["--width", "10"], "--width 10 must be a multiple of 4"),
        (["--seed", "20261122113000"], "--seed: '20261122113000' is not a whole number from 1 to 4294967295"),
        (["--precision", "1"], "--precision 1 must be more than 0 and less than 1"),
        (["--passes", "0"], "'0' is not a number greater than 0"),
        (["--feedback-weight", "-1"], "'-1' is not a number of at least 0"),
        (["--passes", "1", "--passes", "2"], "--passes is given 3 times for 1 --input"),
        (["--ontology", "nothing.json"], "Cannot read --ontology nothing.json"),
        (["--annotations", "nothing.jsonl"], "Cannot read the annotations nothing.jsonl"),
        (["--annotations", "{other}"], "names no dialogue of the inputs"),
        (["--init", "{empty}"], "cannot be loaded as a RoBERTa checkpoint"),
        (["--init", "builtin"], "--width is of a new model; --init builtin has its own"),
        (["--init-share", "1"], "--init-share 1 must be less than 1"),
        (["--init-share", ".5"], "has learned none: leave it out"),
        (["--alias", "latest"], "--alias: 'latest' is no alias"),
        (["--alias", "V2"], "--alias: 'V2' is no alias"),
        (["--alias", "prod.1"], "--alias: 'prod.1' is no alias"),
        (["--name", "kitchen/faultline"], "--name: 'kitchen/faultline' is no name"),
        (["--name", "anna's"], '--name: "anna\'s" is no name'),
        (["--name", "."], "--name: '.' is no name"),
        (["--output", "gs://bucket/model"], "must be a local folder"),
        (["--output", "{file}/model"], "Cannot write to --output"),
        (["--input", "{empty}/*"], "{empty}"),
    ],
)
def test_a_mistake_is_one_sentence(
    options: list[str],
    message: str,
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {name: tmp_path / name for name in ("other", "file", "empty")}
    places["other"].write_text('{"dialogue_id": "of another log", "failure_points": ["asr"]}\n')
    places["file"].write_text("")
    places["empty"].mkdir()
    options = [option.format(**places) for option in options]
    assert main(command(tmp_path / "output", *options)) == 2
    said = capsys.readouterr().err
    assert message.format(**places) in said
    assert "Traceback" not in said
