"""What is written to MLflow and read from it: one run a job, and the registry of models.

The default store is a SQLite file beside the output, with the artifacts in `mlartifacts` beside it. Models are
registered as the plain files of their folder (JSON, safetensors): nothing is pickled.

MLflow's telemetry is switched off; nothing is sent but to the tracking server that the user names.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems
from msgspec import Struct

from pipelines import storage
from pipelines.credentials import has_password, without_secrets
from pipelines.errors import RunFailed, UserError
from pipelines.results import HISTOGRAM_BINS, RunSummary
from pipelines.summary_plot import confidence_figure, failure_points_figure
from pipelines.validation import ValidationReport

BUILTIN = "builtin"
"""The name of the model that ships with Faultline."""

_ATTEMPT = "faultline.attempt"
_MODEL_FOLDER = "model"
_SQLITE = "sqlite:///"
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")
# What MLflow takes; and no `@` or `'`, with which a model could not be named in models:/NAME@ALIAS or looked for.
_NAME = re.compile(r"(?=.*\S)(?!\.$|\.\.)[^/:@']{1,256}", re.DOTALL)
_ALIAS = re.compile(r"(?!latest$|v\d+$)[\w-]{1,255}", re.IGNORECASE)
_PARAMETER_LIMIT = 500
_NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})


class TrackingError(RunFailed):
    """MLflow could not be reached or did not take what was sent; what the job wrote elsewhere stays."""


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a model in the registry; `uri` is what `--model` takes."""

    name: str
    version: str
    run_id: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def model_name(text: str) -> str:
    """For argparse: a name that the registry takes, which would otherwise be told after the training."""
    wanted = (
        "name for a registered model: give 1 to 256 characters without / : @ and ', but neither . nor what begins "
        "with .."
    )
    return _matching(_NAME, text, wanted)


def model_alias(text: str) -> str:
    """For argparse: an alias that the registry takes."""
    wanted = (
        "alias for a registered model: give 1 to 255 letters, digits, _ and -, but neither latest nor v and a number"
    )
    return _matching(_ALIAS, text, wanted)


def _matching(pattern: re.Pattern[str], text: str, wanted: str) -> str:
    if pattern.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text[:300]!r} is no {wanted}")
    return text


def default_tracking_uri(output: str) -> str:
    """The SQLite store in the folder `output`.

    Raises `UserError` where that is no local folder: SQLite needs a file system.
    """
    if FileSystems.get_scheme(output) is not None:
        raise UserError(
            f"There is no default MLflow store for the output {output}, as SQLite needs a local disk: "
            "say where to track the run with --mlflow-tracking-uri."
        )
    return f"{_SQLITE}{Path(output).absolute() / 'mlflow.db'}"


class LabelRun(Struct, frozen=True, kw_only=True):
    """A run of `faultline label` as it goes to MLflow. `faultline track` reads it back where it could not be sent."""

    attempt: str
    """Names this try of the run in MLflow, where it is one run however often it is sent."""
    tracking_uri: str | None
    """Where it was to go; None: an address with a password, which is not kept."""
    experiment: str
    summary: RunSummary
    validation_json: str
    validation_failures: int
    parameters: dict[str, str]
    run_json: str
    """The text of `run.json`."""
    failure: str | None
    """Why the run failed, if it did."""
    ended_at: float
    """Seconds since 1970."""

    @classmethod
    def of(
        cls,
        *,
        tracking_uri: str,
        experiment: str,
        summary: RunSummary,
        validation: ValidationReport,
        parameters: Mapping[str, object],
        run_json: str,
        failure: str | None = None,
    ) -> LabelRun:
        """The run that has just ended. `parameters`: the job's settings, without secrets, and what names its input."""
        return cls(
            attempt=uuid.uuid4().hex,
            tracking_uri=None if has_password(tracking_uri) else tracking_uri,
            experiment=experiment,
            summary=summary,
            validation_json=validation.to_json(),
            validation_failures=len(validation.failures),
            parameters={name: str(value) for name, value in parameters.items()},
            run_json=run_json,
            failure=failure,
            ended_at=time.time(),
        )


def log_label_run(run: LabelRun, tracking_uri: str) -> str:
    """Writes one run of `faultline label` and returns its MLflow run id; a run that is there is written over.

    Metrics: counts, `failure_point/<name>`, `rejected/<reason>`, `abstained/<label>` (all in rows), shares,
    seconds. Artifacts: `run.json`, `validation.json`, `labels.json` (distributions) and two pictures.

    Raises `TrackingError`.
    """
    summary = run.summary
    turns = max(summary.turns, 1)
    metrics: dict[str, float] = {
        "records": summary.records,
        "dialogues": summary.dialogues,
        "turns": summary.turns,
        "goals": summary.goals,
        "unreached_goals": summary.unreached_goals,
        "rejected": summary.rejected_rows,
        "shortened_turns": summary.shortened_turns,
        "turns_per_second": summary.turns_per_second,
        "wall_seconds": summary.wall_seconds,
        "validation_success": run.validation_failures == 0,
        "validation_failures": run.validation_failures,
    }
    metrics |= {f"failure_point/{point}": count for point, count in summary.failure_points.items()}
    metrics |= {f"failure_point_share/{point}": n / turns for point, n in summary.failure_points.items()}
    metrics |= {f"rejected/{reason}": count for reason, count in summary.rejected.items()}
    metrics |= {f"abstained/{label}": count for label, count in summary.abstained.items()}
    tags = {
        "faultline.job": "label",
        "faultline.run_id": summary.run_id,
        "faultline.model_uri": summary.model_uri,
        "faultline.model_version": summary.model_version,
        _ATTEMPT: run.attempt,
    }
    distributions = {
        "failure_points": summary.failure_points,
        "intents": summary.intents,
        "abstained": summary.abstained,
        "rejected": summary.rejected,
        "confidence": {"bins": HISTOGRAM_BINS, "from": 0, "to": 1, "rows": summary.confidence},
    }
    times = (run.ended_at - summary.wall_seconds, run.ended_at)
    name = f"label-{summary.run_id}"
    with _open_run(tracking_uri, run.experiment, name, tags, run.failure, times) as (client, run_id):
        _log_values(client, run_id, run.parameters, [metrics], run.ended_at)
        client.log_text(run_id, run.run_json, "run.json")
        client.log_text(run_id, run.validation_json, "validation.json")
        client.log_text(run_id, json.dumps(distributions, indent=2) + "\n", "labels.json")
        client.log_figure(run_id, failure_points_figure(summary.failure_points), "failure_points.png")
        client.log_figure(run_id, confidence_figure(summary.confidence), "confidence.png")
    return run_id


def log_training_run(
    *,
    tracking_uri: str,
    experiment: str,
    run_name: str,
    parameters: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
    model_folder: Path,
    registered_name: str,
    alias: str | None = None,
) -> RegisteredModel:
    """Writes one training run, with the model's files, and registers them as a version of `registered_name`.

    `history` holds the metrics of each step, in order. `alias`, if given, is moved to the new version.

    Raises `TrackingError`.
    """
    tags = {"faultline.job": "train"}
    with _open_run(tracking_uri, experiment, run_name, tags, None) as (client, run_id):
        _log_values(client, run_id, parameters, history)
        client.log_artifacts(run_id, str(model_folder), _MODEL_FOLDER)
        if not client.search_registered_models(f"name = '{registered_name}'"):
            client.create_registered_model(registered_name)
        source = f"runs:/{run_id}/{_MODEL_FOLDER}"
        version = client.create_model_version(registered_name, source, run_id).version
        if alias is not None:
            client.set_registered_model_alias(registered_name, alias, version)
    return RegisteredModel(registered_name, str(version), run_id)


def log_evaluation_run(
    *,
    tracking_uri: str,
    experiment: str,
    run_name: str,
    model_uri: str,
    model_version: str,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
    files: Sequence[Path],
) -> str:
    """Writes one run of `faultline evaluate` with its files, and returns its MLflow run id. Raises `TrackingError`."""
    tags = {
        "faultline.job": "evaluate",
        "faultline.model_uri": model_uri,
        "faultline.model_version": model_version,
    }
    with _open_run(tracking_uri, experiment, run_name, tags, None) as (client, run_id):
        _log_values(client, run_id, parameters, [metrics])
        for file in files:
            client.log_artifact(run_id, str(file))
    return run_id


def log_report_run(
    *,
    tracking_uri: str,
    experiment: str,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
    page: Path,
) -> str:
    """Writes one run of `faultline report` with its page, and returns its MLflow run id. Raises `TrackingError`."""
    with _open_run(tracking_uri, experiment, page.stem, {"faultline.job": "report"}, None) as (client, run_id):
        _log_values(client, run_id, parameters, [metrics])
        client.log_artifact(run_id, str(page))
    return run_id


def log_drift_run(
    *,
    tracking_uri: str,
    experiment: str,
    run_name: str,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
    drift_json: str,
) -> str:
    """Writes one run of `faultline drift`, and returns its MLflow run id. Raises `TrackingError`."""
    with _open_run(tracking_uri, experiment, run_name, {"faultline.job": "drift"}, None) as (client, run_id):
        _log_values(client, run_id, parameters, [metrics])
        client.log_text(run_id, drift_json, "drift.json")
    return run_id


def resolve_model(uri: str, tracking_uri: str | None) -> Path:
    """The local folder of a model: `builtin`, a folder, `models:/name/version` or `models:/name@alias`.

    A registered model is copied from the registry at `tracking_uri`, to a temporary folder if it is not on
    this machine. Raises `UserError` where there is no such model, `TrackingError` where the registry cannot be
    reached.
    """
    if uri == BUILTIN:
        folder = Path(str(importlib.resources.files("labelers"))) / BUILTIN
        if not folder.is_dir():
            raise UserError(f"The model that ships with Faultline is not at {folder}: install Faultline again.")
        return folder
    if registered := _REGISTERED.fullmatch(uri):
        return _download(uri, registered, tracking_uri)
    folder = Path(storage.absolute(uri))
    if not storage.is_folder(folder):
        raise UserError(
            f"There is no model {uri!r}: give {BUILTIN!r}, a folder that holds a model, or a registered "
            "model as models:/name/version or models:/name@alias."
        )
    return folder


def _download(uri: str, registered: re.Match[str], tracking_uri: str | None) -> Path:
    if tracking_uri is None:
        raise UserError(f"{uri} is in a registry: say in which with --mlflow-tracking-uri.")
    missing = UserError(
        f"There is no {uri} in the registry at {without_secrets(tracking_uri)}: register it, or name another."
    )
    # Opening a SQLite store that is not there would make one.
    if tracking_uri.startswith(_SQLITE) and not Path(tracking_uri.removeprefix(_SQLITE)).is_file():
        raise missing
    with _reaching(tracking_uri):
        client = _client(tracking_uri)
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        name, version, alias = registered["name"], registered["version"], registered["alias"]
        try:
            if alias is not None:
                version = client.get_model_version_by_alias(name, alias).version
            source = client.get_model_version_download_uri(name, version)
        except MlflowException as error:
            if error.error_code in _NOT_THERE:
                raise missing from None
            raise
        return Path(download_artifacts(artifact_uri=source, tracking_uri=tracking_uri))


def _client(tracking_uri: str) -> Any:
    # MLflow reads these when it is imported, which takes seconds: here, not at the top, for the workers' sake.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # Its own seven retries wait four minutes for a server that is not there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri, tracking_uri)


@contextmanager
def _reaching(tracking_uri: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # MLflow lets through whatever its stores raise: of SQLAlchemy, of requests, of the drivers.
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrackingError(without_secrets(f"MLflow at {tracking_uri} could not be used: {cause}")) from error


@contextmanager
def _open_run(
    tracking_uri: str,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    failure: str | None,
    times: tuple[float, float] | None = None,
) -> Iterator[tuple[Any, str]]:
    """A new run, or the one with this attempt's tag, closed at the end: as failed if `failure` says so or the block
    raises. `times` are its start and its end, in seconds since 1970; None: now."""
    start, end = (None, None) if times is None else (round(1000 * time) for time in times)
    with _reaching(tracking_uri):
        client = _client(tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            experiment_id = found.experiment_id
        else:
            experiment_id = client.create_experiment(experiment, _artifact_location(tracking_uri))
        attempt = tags.get(_ATTEMPT)
        sent = client.search_runs([experiment_id], f"tags.`{_ATTEMPT}` = '{attempt}'") if attempt else []
        run = sent[0] if sent else client.create_run(experiment_id, start, dict(tags), name)
        run_id = run.info.run_id
        if failure is not None:
            client.set_tag(run_id, "faultline.failure", failure)
        status = "FAILED"
        try:
            yield client, run_id
            status = "FINISHED" if failure is None else "FAILED"
        finally:
            client.set_terminated(run_id, status, end)


def _artifact_location(tracking_uri: str) -> str | None:
    """Beside a SQLite file, where MLflow would use the current folder; a server knows its own place."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return (Path(tracking_uri.removeprefix(_SQLITE)).absolute().parent / "mlartifacts").as_uri()


def _log_values(
    client: Any,
    run_id: str,
    parameters: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
    at: float | None = None,
) -> None:
    """`at` is when the metrics were measured, in seconds since 1970; None: now."""
    from mlflow.entities import Metric, Param

    measured = round(1000 * (time.time() if at is None else at))
    client.log_batch(run_id, params=[Param(key, value) for key, value in _shown(parameters).items()])
    for step, metrics in enumerate(history):
        client.log_batch(run_id, [Metric(key, float(value), measured, step) for key, value in metrics.items()])


def _shown(parameters: Mapping[str, object]) -> dict[str, str]:
    """As MLflow has them: without secrets, and not too long for it."""
    return {name: _short(without_secrets(str(value))) for name, value in parameters.items()}


def _short(text: str) -> str:
    return text if len(text) <= _PARAMETER_LIMIT else f"{text[:_PARAMETER_LIMIT]}… ({len(text):,} characters)"
