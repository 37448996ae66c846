"""Where much was labelled the workers validate it, each some of it: the same report, and nothing is missed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines import graph, label
from pipelines.cli import main
from pipelines.staging import Staging
from schemas.labels import TABLES

DIALOGUES = 60
SHARES = 5

Command = Callable[..., list[str]]


@pytest.fixture
def command(tmp_path: Path, tiny_model_dir: Path) -> Command:
    """Labels 120 turns and one line that is none, some ten at a time."""
    turns = [{"text": "play some jazz"}, {"text": "stop"}]
    lines = [json.dumps({"dialogue_id": f"d{index}", "turns": turns}) for index in range(DIALOGUES)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, "no dialogue"]))
    tracking = f"sqlite:///{tmp_path}/mlflow.db"

    def command(output: str, *more: str) -> list[str]:
        options = ["--model", str(tiny_model_dir), "--mlflow-tracking-uri", tracking, "--no-progress"]
        options += ["--chunk-bytes", "500"]
        return ["label", "--input", str(tmp_path / "log.jsonl"), "--output", str(tmp_path / output), *options, *more]

    return command


def share(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(label, "SHARE_ROWS", rows)
    monkeypatch.setattr(label, "SHARES_ALONE", 0)


def tables(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for table in TABLES
        for path in output.glob(f"{table}/**/*.parquet")
    }


def counts(report: Path) -> tuple[dict[str, int], list[tuple[Any, ...]]]:
    content = json.loads(report.read_text())
    columns = ("frame", "column", "expectation", "success", "element_count", "missing_count", "unexpected_count")
    return content["rows"], sorted(tuple(each[name] for name in columns) for each in content["expectations"])


@pytest.mark.parametrize(
    "engine",
    [
        [],
        pytest.param(["--processes", "2"], marks=pytest.mark.slow),
        pytest.param(["--runner", "dask"], marks=pytest.mark.slow),
    ],
    ids=["one process", "two processes", "dask"],
)
def test_workers_report_what_the_launcher_would(
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    engine: list[str],
) -> None:
    assert main(command("alone")) == 0
    assert "The workers validate" not in capfd.readouterr().err
    share(monkeypatch, 20)
    assert main(command("shared", *engine)) == 0
    assert f"The workers validate what they have labelled, in {SHARES} shares." in capfd.readouterr().err
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert tables(alone) == tables(shared)
    assert counts(alone / "validation.json") == counts(shared / "validation.json")
    rows, expectations = counts(shared / "validation.json")
    assert rows == {
        "logs": DIALOGUES,
        "turns": 2 * DIALOGUES,
        "goals": rows["goals"],
        "dialogues": DIALOGUES,
        "rejected": 1,
    }
    assert any(frame == "totals" for frame, *_ in expectations)
    assert not list(shared.glob("_staging/*/*"))


def test_what_a_worker_finds_wrong_fails_the_run(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    share(monkeypatch, 20)
    build = graph.build_validation
    damaged: list[Path] = []

    def damage_first(pipeline: beam.Pipeline, staging: Staging, shares: int) -> beam.PCollection:
        damaged.append(sorted(Path(staging.table("goals")).glob("*.parquet"))[-1])
        damaged[0].write_bytes(b"PAR1 and no more")
        return build(pipeline, staging, shares)

    monkeypatch.setattr(graph, "build_validation", damage_first)
    assert main(command("out")) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "Validation failed: goals, column columns: expect_column_values_to_not_be_null does not hold" in said
    assert f"e.g. {damaged[0]}" in said
    assert not tables(tmp_path / "out")


def test_a_share_that_a_runner_loses_fails_the_run_and_is_validated_by_the_next(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    share(monkeypatch, 20)
    build = graph.build_validation
    with monkeypatch.context() as patched:
        patched.setattr(
            graph, "build_validation", lambda pipeline, staging, shares: build(pipeline, staging, shares - 1)
        )
        assert main(command("out")) == 1
    assert f"The runner lost work: {SHARES - 1} of {SHARES} shares arrived." in capfd.readouterr().err
    # Other shares than those of which the findings are still there.
    share(monkeypatch, 40)
    assert main(command("out")) == 0
    said = capfd.readouterr().err
    assert f"going on after the {2 * DIALOGUES} turns" in said
    assert "in 3 shares." in said
    rows, _ = counts(tmp_path / "out" / "validation.json")
    assert rows["turns"] == 2 * DIALOGUES
