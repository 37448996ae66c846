"""`faultline label`, started as a user starts it, with a real model of the smallest size."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from labelers.model import Model
from pipelines.cli import main
from pipelines.errors import RunFailed, UserError
from pipelines.label import run
from pipelines.results import RunSummary
from schemas.labels import TABLES, DialogueLabels
from schemas.log import ARROW_SCHEMA, Dialogue

SHARED = Path(__file__).parents[2].parent / "shared"

Label = Callable[..., RunSummary]


def dialogue(name: str, turns: int = 2, **more: Any) -> dict[str, Any]:
    texts = ["play some jazz", "no, i said jazz", "stop", "thanks"]
    return {"dialogue_id": name, "turns": [{"text": texts[index % 4]} for index in range(turns)], **more}


def lines(records: Sequence[Any]) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in records)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def options(tmp_path: Path, tiny_model_dir: Path, tracking: str) -> list[str]:
    """What every command here has, less the input."""
    model = ["--model", str(tiny_model_dir), "--mlflow-tracking-uri", tracking, "--no-progress"]
    return [*model, "--output", str(tmp_path / "out")]


@pytest.fixture
def label(tmp_path: Path, options: list[str]) -> Label:
    """Labels the input files of a glob in tmp_path."""

    def run_it(glob: str = "*.jsonl*", *more: str) -> RunSummary:
        summary = run(["--input", str(tmp_path / glob), *options, *more])
        assert summary is not None
        return summary

    return run_it


def rows(output: Path, table: str, columns: str = "*") -> list[Any]:
    """Rows as an analyst reads them, in an order of their own."""
    files = f"{output}/{table}/**/*.parquet"
    return duckdb.sql(
        f"select {columns} from read_parquet('{files}', hive_partitioning = false) order by all"
    ).fetchall()


def ids(output: Path) -> list[str]:
    return [row[0] for row in rows(output, "dialogues", "dialogue_id")]


def rejects(output: Path) -> list[tuple[str, int, str]]:
    found = rows(output, "rejected", "source, position, reason")
    return [(Path(source).name, position, reason) for source, position, reason in found]


@pytest.mark.slow
def test_every_record_is_labelled_or_rejected_with_its_reason(tmp_path: Path, label: Label) -> None:
    bad: dict[str, bytes] = {
        "invalid_json": b'{"dialogue_id": ',
        "invalid_utf8": b'{"dialogue_id": "\xff", "turns": [{"text": "a"}]}',
        "no_turns": b'{"dialogue_id": "x", "turns": []}',
        "missing_text": b'{"dialogue_id": "x", "turns": [{"turn_id": "1"}]}',
        "missing_field": b'{"turns": [{"text": "a"}]}',
        "wrong_type": b'{"dialogue_id": 3, "turns": [{"text": "a"}]}',
        "duplicate_id": json.dumps(dialogue("good")).encode(),
    }
    good = [dialogue("good"), dialogue("long", 3_000), dialogue("wide") | {"turns": [{"text": "word " * 20_000}]}]
    (tmp_path / "a.jsonl").write_bytes(lines([*good, *bad.values()]))
    noise = [dialogue(f"z{index}", 1, user_id=str(random.Random(index).random())) for index in range(2_000)]
    zipped = gzip.compress(lines(noise))
    (tmp_path / "b.jsonl.gz").write_bytes(zipped[: len(zipped) // 2])
    summary = label()
    assert rejects(tmp_path / "out")[:-1] == [("a.jsonl", 4 + index, reason) for index, reason in enumerate(bad)]
    last_source, last_position, last_reason = rejects(tmp_path / "out")[-1]
    assert (last_source, last_reason) == ("b.jsonl.gz", "truncated_file")
    assert last_position > 200
    assert summary.rejected == dict.fromkeys([*bad, "truncated_file"], 1)
    assert ids(tmp_path / "out") == sorted(["good", "long", "wide", *(f"z{i}" for i in range(last_position - 1))])
    assert summary.records == summary.dialogues + summary.rejected_rows == len(bad) + 3 + last_position
    assert summary.turns == len(rows(tmp_path / "out", "turns")) == 2 + 3_000 + 1 + last_position - 1
    assert rows(tmp_path / "out", "turns", "count(*)::int, max(turn_index)")[0] == (summary.turns, 2_999)


def test_tables_have_the_fixed_schema_even_without_rows(tmp_path: Path, label: Label) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert label().records == 0
    for table, schema in TABLES.items():
        assert ds.dataset(tmp_path / "out" / table).schema.equals(schema)


@pytest.mark.parametrize("kind", ["gzip", "array", "parquet"])
def test_the_container_makes_no_difference(tmp_path: Path, label: Label, options: list[str], kind: str) -> None:
    logs = [dialogue(f"d{index}", 1 + index % 3) for index in range(20)]
    (tmp_path / "plain.jsonl").write_bytes(lines(logs))
    label("plain.jsonl")
    expected = {
        table: rows(tmp_path / "out", table, "* exclude (run_id)" if table == "turns" else "*") for table in TABLES
    }
    if kind == "gzip":
        (tmp_path / "packed").write_bytes(gzip.compress(lines(logs)))
    elif kind == "array":
        (tmp_path / "packed.json").write_text(json.dumps(logs))
    else:
        pq.write_table(pa.Table.from_pylist(logs, schema=ARROW_SCHEMA), tmp_path / "packed")
    label("packed*", "--output", str(tmp_path / "packed-out"))
    for table in TABLES:
        columns = "* exclude (run_id)" if table == "turns" else "*"
        assert rows(tmp_path / "packed-out", table, columns) == expected[table]


def test_the_chunk_size_changes_no_row(tmp_path: Path, label: Label) -> None:
    names = [f"d{index % 60}" for index in range(80)]  # the last 20 are duplicates, in other chunks if these are small
    (tmp_path / "a.jsonl").write_bytes(lines([*map(dialogue, names), b"{"]))
    label()
    label("a.jsonl", "--output", str(tmp_path / "small"), "--chunk-bytes", "500")
    assert len(list((tmp_path / "small" / "turns").rglob("*.parquet"))) == 10
    for table in ("goals", "dialogues", "rejected"):
        assert rows(tmp_path / "small", table) == rows(tmp_path / "out", table)
    columns = "dialogue_id, turn_index, goal_id, intent, failure_point, round(defect_probability, 4)"
    assert rows(tmp_path / "small", "turns", columns) == rows(tmp_path / "out", "turns", columns)


def test_of_one_id_in_several_files_the_first_stays(tmp_path: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("x", 1), dialogue("a")]))
    (tmp_path / "b.jsonl").write_bytes(lines([dialogue("b"), dialogue("x", 2)]))
    (tmp_path / "c.jsonl").write_bytes(lines([dialogue("x", 3)]))
    label()
    assert rows(tmp_path / "out", "dialogues", "dialogue_id, turn_count") == [("a", 2), ("b", 2), ("x", 1)]
    assert rejects(tmp_path / "out") == [("b.jsonl", 2, "duplicate_id"), ("c.jsonl", 1, "duplicate_id")]


def test_one_dialogue_that_cannot_be_labelled_costs_no_other(
    tmp_path: Path, label: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Model.label

    def poisoned(model: Model, dialogues: Sequence[Dialogue], ontology: Any = None) -> list[DialogueLabels]:
        for each in dialogues:
            if each.dialogue_id == "poison":
                raise ValueError("too bitter")
            if each.dialogue_id == "huge":
                raise MemoryError
        return real(model, dialogues, ontology)

    monkeypatch.setattr(Model, "label", poisoned)
    names = [*(f"d{index}" for index in range(13)), "poison", "huge", "e"]
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue(name) for name in names]))
    label()
    assert ids(tmp_path / "out") == sorted({*names} - {"poison", "huge"})
    assert rows(tmp_path / "out", "rejected", "position, reason, message") == [
        (14, "label_failed", "ValueError: too bitter"),
        (15, "out_of_memory", "MemoryError: "),
    ]


def test_the_same_run_again_changes_nothing(tmp_path: Path, label: Label, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    first = label()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert label() == first
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert "nothing was changed" in " ".join(capsys.readouterr().out.split())


def test_a_changed_input_replaces_its_own_rows_and_no_others(tmp_path: Path, label: Label) -> None:
    (tmp_path / "monday.jsonl").write_bytes(lines([dialogue("a"), dialogue("b")]))
    (tmp_path / "tuesday.jsonl").write_bytes(lines([dialogue("c")]))
    label("monday.jsonl")
    label("tuesday.jsonl")
    (tmp_path / "monday.jsonl").write_bytes(lines([dialogue("b")]))
    label("monday.jsonl")
    assert ids(tmp_path / "out") == ["b", "c"]
    assert not [each for each in (tmp_path / "out" / "_staging").iterdir() if each.is_dir()]


def test_a_file_that_another_pattern_has_labelled_is_refused(tmp_path: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    label("a.jsonl")
    with pytest.raises(UserError, match=r"a\.jsonl is already labelled .* twice"):
        label("*.jsonl")


def test_partition_by_date(tmp_path: Path, label: Label) -> None:
    late = "2024-05-01T23:30:00-02:00"  # the next day in UTC
    (tmp_path / "a.jsonl").write_bytes(
        lines([dialogue("a", started_at="2024-05-01T10:00:00Z"), dialogue("b", started_at=late), dialogue("c")])
    )
    label("a.jsonl", "--partition-by", "date")
    for table in ("turns", "goals", "dialogues"):
        found = duckdb.sql(
            f"select distinct dialogue_id, date::varchar from read_parquet('{tmp_path}/out/{table}/*/*/*.parquet', "
            "hive_partitioning = true) order by all"
        ).fetchall()
        assert found == [("a", "2024-05-01"), ("b", "2024-05-02"), ("c", None)]


def test_a_partition_whose_only_dialogue_is_a_duplicate_is_not_published(tmp_path: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("x", started_at="2024-05-01T10:00:00Z")]))
    (tmp_path / "b.jsonl").write_bytes(lines([dialogue("x", started_at="2024-05-02T10:00:00Z"), dialogue("y")]))
    label("*.jsonl", "--partition-by", "date")
    assert ids(tmp_path / "out") == ["x", "y"]
    assert not list((tmp_path / "out").glob("*/*/date=2024-05-02/*"))


def test_a_limit_takes_the_first_records_across_files(tmp_path: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a"), dialogue("b")]))
    (tmp_path / "b.jsonl").write_bytes(lines([dialogue("c"), dialogue("d")]))
    label("*.jsonl", "--limit", "3")
    assert ids(tmp_path / "out") == ["a", "b", "c"]


def test_turn_events_become_dialogues(tmp_path: Path, label: Label) -> None:
    events = [
        {
            "session_id": f"s{index % 7}",
            "started_at": f"2024-05-01T{9 + index // 35:02}:{index % 60:02}:00Z",
            "text": "hi",
        }
        for index in range(70)
    ]
    random.Random(0).shuffle(events)
    (tmp_path / "a.jsonl").write_bytes(lines([*events[:40], {"text": "nobody's"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([*events[40:], events[0]]))
    summary = label("*.jsonl", "--input-format", "turns", "--chunk-bytes", "400")
    assert summary.turns == 70
    assert summary.rejected == {"missing_field": 1, "duplicate_event": 1}
    assert summary.records == 72
    assert {name.partition("#")[0] for name in ids(tmp_path / "out")} == {f"s{index}" for index in range(7)}


def test_too_many_rejects_fail_the_run_and_publish_nothing(tmp_path: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a"), b"{", b"{"]))
    with pytest.raises(RunFailed, match=r"2 of 3 records were rejected .*invalid_json.*Nothing was published"):
        label()
    assert not list((tmp_path / "out").glob("turns/**/*.parquet"))
    assert label("*.jsonl", "--max-reject-rate", "0.7").dialogues == 1


def test_it_runs_in_a_thread(tmp_path: Path, label: Label) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(label).result().dialogues == 1


def test_a_dry_run_writes_nothing(tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    assert run(["--input", str(tmp_path / "a.jsonl"), *options, "--dry-run"]) is None
    assert "model version" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.slow
def test_worker_processes_give_the_same_rows(tmp_path: Path, label: Label, options: list[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue(f"d{index}") for index in range(30)]))
    label("a.jsonl", "--chunk-bytes", "500")
    workers = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    output = ["--output", str(tmp_path / "two"), "--chunk-bytes", "500"]
    command = [sys.executable, "-m", "pipelines.label", "--input", str(tmp_path / "a.jsonl"), *options, *output]
    subprocess.run([*command, *workers], check=True, cwd=Path(__file__).parents[2])
    for table in TABLES:
        assert rows(tmp_path / "two", table) == rows(tmp_path / "out", table)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--input", "nowhere.jsonl"], "No file matches --input"),
        (["--input-format", "toml"], "Unknown input format 'toml': choose one of"),
        (["--model", "nowhere"], "There is no model 'nowhere'"),
        (["--output", "{tmp}/a.jsonl/out"], "Cannot write to --output"),
        (["--input", "{tmp}"], "is a folder"),
        (["--limit", "0"], "'0' is not a whole number of at least 1"),
        (["--max-reject-rate", "2"], "'2' is not a number from 0 to 1"),
        (["--inputformat", "sgd"], "unknown option --inputformat, did you mean --input-format"),
        (["stray"], "unknown option stray"),
        (["--runner", "Nobody"], "cannot use --runner Nobody"),
        (["--direct_num_workers", "two"], "--direct_num_workers"),
        (["--ontology", "nowhere.json"], "Cannot read --ontology nowhere.json"),
        (["--ontology", "~nobody-of-that-name/o.json"], "Cannot read --ontology ~nobody-of-that-name/o.json"),
        (["--model", "~nobody-of-that-name/model"], "There is no model '~nobody-of-that-name/model'"),
        (["--model", "m" * 300], "There is no model 'mmm"),
        (["--session-gap-minutes", "1e13"], "'1e13' is longer than any time span"),
        (["--device", "gpu"], "argument --device: invalid choice: 'gpu' (choose from"),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda: PyTorch finds no GPU on this machine: install its CUDA build, or leave --device out.",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--environment_type", "PROCESS"], "process_command is required"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str], change: list[str], said: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    command = ["label", "--input", str(tmp_path / "a.jsonl"), *options]
    assert main([*command, *(each.format(tmp=tmp_path) for each in change)]) == 2
    captured = capfd.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_a_dry_run_shows_a_pattern_as_it_was_given(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    assert main(["label", "--input", str(tmp_path / "[a-m]*.jsonl"), *options, "--dry-run"]) == 0
    assert str(tmp_path / "[a-m]*.jsonl") in capfd.readouterr().out


@pytest.mark.parametrize("pattern", ["*", os.fsdecode(b"caf\xe9.jsonl")])
def test_a_file_whose_name_is_not_utf_8_is_a_mistake(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str], pattern: str
) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(lines([dialogue("a")]))
    assert main(["label", "--input", str(tmp_path / pattern), *options]) == 2
    error = capfd.readouterr().err
    assert r"caf\udce9.jsonl' is not UTF-8" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer.json", "manifest.json"])
def test_a_model_with_a_part_missing_is_a_mistake(
    tmp_path: Path, options: list[str], tiny_model_dir: Path, capfd: pytest.CaptureFixture[str], part: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / part).unlink()
    assert main(["label", "--input", str(tmp_path / "a.jsonl"), *options, "--model", str(folder)]) == 2
    error = capfd.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_a_failed_run_is_one_sentence_and_exit_code_1(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([b"{"]))
    assert main(["label", "--input", str(tmp_path / "a.jsonl"), *options]) == 1
    error = capfd.readouterr().err
    assert "1 of 1 records were rejected" in error
    assert "Traceback" not in error


def test_labels_stay_where_mlflow_cannot_be_reached(
    tmp_path: Path, label: Label, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([dialogue("a")]))
    label("a.jsonl", "--mlflow-tracking-uri", f"sqlite:///{tmp_path}/a.jsonl/mlflow.db")
    assert ids(tmp_path / "out") == ["a"]
    assert "The run is not in MLflow" in capfd.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/dstc2")
@pytest.mark.slow
def test_all_calls_of_dstc2_are_labelled(tmp_path: Path, options: list[str]) -> None:
    calls = SHARED / "data" / "dstc2" / "train.jsonl.gz"
    summary = run(["--input", str(calls), "--input-format", "dstc2", *options])
    assert summary is not None
    assert (summary.dialogues, summary.turns, summary.rejected) == (1_612, 11_677, {})
    assert len(rows(tmp_path / "out", "turns", "dialogue_id")) == 11_677
