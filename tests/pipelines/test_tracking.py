"""What a run writes to MLflow can be read back, and a registered model comes back byte for byte."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines import storage
from pipelines.cli import main
from pipelines.errors import UserError
from pipelines.results import RunSummary
from pipelines.summary_plot import confidence_figure, failure_points_figure
from pipelines.track import keep
from pipelines.tracking import (
    LabelRun,
    TrackingError,
    default_tracking_uri,
    log_label_run,
    log_training_run,
    model_alias,
    model_name,
    resolve_model,
)
from pipelines.validation import Outcome, ValidationReport

VALIDATION = ValidationReport({"turns": 10}, [Outcome("turns", "intent", "expect_something", {}, 10)])


def summary(**changed: Any) -> RunSummary:
    values: dict[str, Any] = {
        "run_id": "abc123",
        "dataset": "d1",
        "output": "out",
        "input_format": "jsonl",
        "model_uri": "builtin",
        "model_version": "v9",
        "chunks": 2,
        "wall_seconds": 4.0,
        "turns_per_second": 2.5,
        "records": 5,
        "dialogues": 4,
        "turns": 10,
        "goals": 4,
        "failure_points": {"correct": 8, "asr": 2},
        "rejected": {"invalid_json": 1},
        "abstained": {"slots": 3},
        "intents": {"play_music": 10},
        "confidence": {"turns.intent_confidence": [0] * 19 + [10]},
    }
    return RunSummary(**values | changed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A default store, shared: making its tables takes seconds."""
    return default_tracking_uri(str(tmp_path_factory.mktemp("output")))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tried: list[Any] = []

    def refuse(_: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not tried


def folder_of(store: str) -> Path:
    return Path(store.removeprefix("sqlite:///")).parent


def ended(store: str, **changed: Any) -> LabelRun:
    values: dict[str, Any] = {
        "tracking_uri": store,
        "experiment": "faultline",
        "summary": summary(),
        "validation": VALIDATION,
        "parameters": {"input": "*.jsonl", "input_fingerprint": "f00d", "limit": None},
        "run_json": '{"run": 1}',
    }
    return LabelRun.of(**values | changed)


def log(store: str, **changed: Any) -> str:
    return log_label_run(ended(store, **changed), store)


def client(store: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store, store)


@pytest.mark.usefixtures("no_network")
def test_a_label_run_is_read_back(store: str, tmp_path: Path) -> None:
    run_id = log(store)
    run = client(store).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"input": "*.jsonl", "input_fingerprint": "f00d", "limit": "None"}
    assert run.data.tags["faultline.model_version"] == "v9"
    assert run.data.metrics["turns"] == 10
    assert run.data.metrics["failure_point_share/asr"] == 0.2
    assert run.data.metrics["rejected/invalid_json"] == 1
    assert run.data.metrics["turns_per_second"] == 2.5
    assert run.data.metrics["validation_success"] == 1
    files = Path(client(store).download_artifacts(run_id, "", str(tmp_path)))
    assert (files / "run.json").read_text() == '{"run": 1}'
    assert (files / "validation.json").read_text() == VALIDATION.to_json()
    labels = json.loads((files / "labels.json").read_text())
    assert labels["confidence"]["rows"]["turns.intent_confidence"][-1] == 10
    assert (files / "failure_points.png").read_bytes().startswith(b"\x89PNG")
    assert (files / "confidence.png").read_bytes().startswith(b"\x89PNG")


def test_a_failed_run_says_why(store: str) -> None:
    run = client(store).get_run(log(store, failure="Too many rejects."))
    assert run.info.status == "FAILED"
    assert run.data.tags["faultline.failure"] == "Too many rejects."


def test_a_long_parameter_is_cut_and_says_so(store: str) -> None:
    run = client(store).get_run(log(store, parameters={"input": "x" * 10_000}))
    assert run.data.params["input"].endswith("… (10,000 characters)")


def test_nothing_is_written_but_beside_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    with caplog.at_level(logging.INFO):
        log(default_tracking_uri(str(tmp_path / "out")))
    assert not list(current.iterdir())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"mlflow.db", "mlartifacts"}
    assert not [each for each in caplog.records if each.name.startswith(("mlflow", "alembic"))]


def runs(store: str, experiment: str) -> list[Any]:
    found = client(store).get_experiment_by_name(experiment)
    return list(client(store).search_runs([found.experiment_id])) if found else []


def said_of(store: str, run: Any, folder: Path) -> Any:
    """All that MLflow has of a run but its own ids."""
    folder.mkdir()
    files = contents(Path(client(store).download_artifacts(run.info.run_id, "", str(folder))))
    tags = {name: value for name, value in run.data.tags.items() if name != "faultline.attempt"}
    return run.info.run_name, run.info.status, run.info.end_time, run.data.params, run.data.metrics, tags, files


@pytest.mark.parametrize("failure", [None, "Too many rejects."])
def test_what_is_sent_later_is_what_would_have_been_sent(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: str | None
) -> None:
    run = ended(store, experiment=f"later {failure}", failure=failure)
    keep(str(tmp_path / "out"), run)
    log_label_run(msgspec.structs.replace(run, attempt="at once", experiment=f"at once {failure}"), store)
    assert main(["track", str(tmp_path / "out")]) == 0
    [at_once], [later] = runs(store, f"at once {failure}"), runs(store, f"later {failure}")
    assert said_of(store, later, tmp_path / "later") == said_of(store, at_once, tmp_path / "at once")
    assert not list((tmp_path / "out" / "untracked").iterdir())
    assert main(["track", str(tmp_path / "out")]) == 0
    assert "is left to send" in capsys.readouterr().out


def test_a_run_that_is_sent_twice_is_one_run(store: str) -> None:
    run = ended(store, experiment="twice")
    assert log_label_run(run, store) == log_label_run(run, store)
    assert len(runs(store, "twice")) == 1
    [measured] = client(store).get_metric_history(runs(store, "twice")[0].info.run_id, "turns")
    assert measured.value == 10


def test_a_run_stays_until_it_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(str(tmp_path), ended(f"sqlite:///{tmp_path}/not-yet/file/mlflow.db"))
    (tmp_path / "not-yet").write_text("in the way")
    assert main(["track", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "not-yet").unlink()
    (tmp_path / "not-yet" / "file").mkdir(parents=True)
    assert main(["track", str(tmp_path)]) == 0
    assert len(runs(f"sqlite:///{tmp_path}/not-yet/file/mlflow.db", "faultline")) == 1


def test_a_password_is_not_kept_and_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = keep(str(tmp_path), ended("postgresql://ann:hunter2@db/mlflow"))
    assert command == f"faultline track {tmp_path} --mlflow-tracking-uri URI"
    [kept] = (tmp_path / "untracked").iterdir()
    assert "hunter2" not in kept.read_text()
    assert main(["track", str(tmp_path)]) == 2
    assert "give it with --mlflow-tracking-uri" in capsys.readouterr().err


def test_a_file_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "untracked").mkdir()
    (tmp_path / "untracked" / "x.json").write_text("{")
    assert main(["track", str(tmp_path)]) == 2
    assert "x.json is no run that faultline label has kept" in capsys.readouterr().err
    assert main(["track", str(tmp_path / "nowhere")]) == 2


def test_an_address_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", "foo://bar"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Cannot use foo://bar: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("list_files", "Cannot read what is kept in "),
        ("read_bytes", "Cannot read what is kept in "),
        ("delete", "is in MLflow, but "),
    ],
)
def test_a_store_that_does_not_answer_is_one_sentence(
    store: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    said: str,
) -> None:
    keep(str(tmp_path), ended(store))

    def unanswered(*_: Any) -> Any:
        raise storage.StoreError("503")

    with monkeypatch.context() as patched:
        patched.setattr(storage, function, unanswered)
        assert main(["track", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert main(["track", str(tmp_path)]) == 0


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9 could not be used: .*$"):
        log("http://127.0.0.1:9")


def test_a_password_is_not_shown() -> None:
    with pytest.raises(TrackingError) as caught:
        log("nosuchdb://ann:secret@localhost/x")
    assert "secret" not in str(caught.value)


def test_an_output_without_a_local_disk_needs_a_tracking_uri() -> None:
    with pytest.raises(UserError, match="--mlflow-tracking-uri"):
        default_tracking_uri("gs://bucket/out")


def train(store: str, folder: Path, registered_name: str = "faultline", **more: Any) -> Any:
    return log_training_run(
        tracking_uri=store,
        experiment="training",
        run_name="first",
        parameters={"epochs": 2},
        history=[{"loss": 2.0}, {"loss": 1.0, "dev.f1": 0.7}],
        model_folder=folder,
        registered_name=registered_name,
        **more,
    )


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_network")
def test_a_registered_model_comes_back_byte_for_byte(
    store: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    registered = train(store, model_folder, alias="champion")
    for uri in (registered.uri, "models:/faultline@champion"):
        assert contents(resolve_model(uri, store)) == contents(model_folder)
    assert not (tmp_path / "mlflow.db").exists()


def test_the_names_and_aliases_that_are_let_through_are_those_that_mlflow_takes(store: str, model_folder: Path) -> None:
    for name, alias in (("main.assistants.kitchen", "prod-1"), ("the kitchen (v2)", "v2a"), (".hidden", "Latest_2")):
        train(store, model_folder, registered_name=model_name(name), alias=model_alias(alias))
        assert contents(resolve_model(f"models:/{name}@{alias}", store)) == contents(model_folder)


def test_an_alias_moves_to_the_new_version(store: str, model_folder: Path) -> None:
    train(store, model_folder, alias="newest")
    (model_folder / "model.safetensors").write_bytes(b"new")
    train(store, model_folder, alias="newest")
    assert (resolve_model("models:/faultline@newest", store) / "model.safetensors").read_bytes() == b"new"


def test_training_metrics_keep_their_steps(store: str, model_folder: Path) -> None:
    registered = train(store, model_folder)
    history = client(store).get_metric_history(registered.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(0, 2.0), (1, 1.0)]


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path), None) == tmp_path


@pytest.mark.parametrize(
    ("uri", "what_to_do"),
    [
        ("models:/nobody@champion", "register it"),
        ("models:/faultline@nobody", "register it"),
        ("models:/faultline/99", "register it"),
        ("no/such/folder", "give 'builtin'"),
        ("models:/name", "models:/name@alias"),
    ],
)
def test_a_model_that_is_not_there_is_the_users_mistake(
    store: str, model_folder: Path, uri: str, what_to_do: str
) -> None:
    train(store, model_folder)
    with pytest.raises(UserError, match=what_to_do):
        resolve_model(uri, store)


def test_asking_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        resolve_model("models:/faultline@champion", default_tracking_uri(str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_the_picture_says_counts_and_shares() -> None:
    axes = failure_points_figure({"correct": 900, "asr": 100}).axes[0]
    assert {text.get_text() for text in axes.texts} >= {"900 (90.0%)", "100 (10.0%)", "0 (0.0%)"}
    assert "1,000 turns: 10.0% failed" in axes.get_title(loc="left")


def test_the_pictures_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    failure_points_figure({}).savefig(tmp_path / "a.png")
    confidence_figure({}).savefig(tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 0
