"""A labelled output that is open: every row of the labels is there, with what the logs say of it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import label, labelled, publish
from pipelines.errors import RunFailed, UserError
from pipelines.labelled import Labelled
from pipelines.staging import Staging
from schemas.labels import LABEL_SCHEMA_VERSION, TABLES

LOGS = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"


@pytest.fixture(scope="module")
def opened(labelled_output: Any) -> Iterator[Labelled]:
    with Labelled.open(str(labelled_output.labels)) as labelled:
        yield labelled


@pytest.fixture
def moved(labelled_output: Any, tmp_path: Path) -> Any:
    """The same output on logs of its own, which a test may change."""
    there = type(labelled_output)(tmp_path / "out", tmp_path / "logs")
    shutil.copytree(labelled_output.logs, there.logs)
    shutil.copytree(labelled_output.labels, there.labels)
    for manifest in (there.labels / "runs").iterdir():
        manifest.write_text(manifest.read_text().replace(str(labelled_output.logs), str(there.logs)))
    for path in (there.labels / "rejected").rglob("*.parquet"):
        rejected = pq.read_table(path)
        sources = pc.replace_substring(rejected["source"], str(labelled_output.logs), str(there.logs))
        pq.write_table(rejected.set_column(0, rejected.schema.field("source"), sources), path)
    return there


def ask(labelled: Labelled, query: str) -> list[Any]:
    return labelled.connection.execute(query).fetchall()


def said(labelled: Labelled) -> list[Any]:
    return ask(labelled, "SELECT dialogue_id, turn_index, text FROM turns ORDER BY ALL")


@pytest.mark.parametrize("table", TABLES)
def test_the_rows_are_those_of_the_label_table(opened: Labelled, labelled_output: Any, table: str) -> None:
    columns = ", ".join(TABLES[table].names)
    files = f"{labelled_output.labels}/{table}/**/*.parquet"
    expected = duckdb.sql(f"SELECT {columns} FROM '{files}' ORDER BY ALL").fetchall()
    assert expected
    assert ask(opened, f"SELECT {columns} FROM {table} ORDER BY ALL") == expected


def test_a_turn_has_what_its_log_says(opened: Labelled) -> None:
    columns = "text, response, action, status, domain, wake_score, barge_in, started_at, locale, device, user_id"
    time = dt.datetime(2026, 3, 1, 8, 15, 2, tzinfo=dt.UTC)
    call = "dialogue_id = 'x' AND device = 'speaker'"
    assert ask(opened, f"SELECT {columns} FROM turns WHERE {call} AND turn_index = 0") == [
        ("play jazz", "Here is jazz.", "play", "success", "music", 0.7, True, time, "en-GB", "speaker", "u1")
    ]
    slot = {"name": "genre", "value": "jazz", "start": None, "end": None, "score": None}
    assert ask(opened, f"SELECT asr, nlu, entities FROM turns WHERE {call} ORDER BY turn_index") == [
        (
            [{"text": "play jazz", "score": 0.6}, {"text": "pay jazz", "score": 0.3}],
            [{"domain": "music", "intent": "play_music", "slots": [slot], "score": 0.9}],
            [{"slot": "genre", "value": "jazz", "entity_id": "g1", "name": "Jazz", "score": 0.8}],
        ),
        ([], [], []),
    ]


def test_a_turn_without_a_time_has_that_of_its_dialogue(opened: Labelled) -> None:
    start = dt.datetime(2026, 3, 1, 8, 15, tzinfo=dt.UTC)
    assert ask(opened, "SELECT started_at FROM turns WHERE text = 'stop'") == [(start,)]
    assert ask(opened, "SELECT started_at, locale FROM dialogues WHERE device = 'speaker'") == [(start, "en-GB")]


def test_a_goal_has_what_was_said_first(opened: Labelled) -> None:
    assert ask(
        opened,
        "SELECT count(*) FROM goals JOIN turns USING (dataset, dialogue_id, goal_id, text, device) WHERE is_goal_start",
    ) == ask(opened, "SELECT count(*) FROM goals WHERE device IS NOT NULL")


def test_of_one_id_each_input_keeps_its_own_text(opened: Labelled) -> None:
    assert said(opened) == [
        ("typed", 0, "stop the music"),
        ("x", 0, "play jazz"),
        ("x", 0, "play rock"),
        ("x", 1, "louder"),
        ("x", 1, "stop"),
        ("x#2", 0, "and pop"),
    ]
    assert opened.notes == ()


def test_a_log_that_is_gone_leaves_the_rows_and_a_note(moved: Any) -> None:
    (moved.logs / "calls-1.jsonl").unlink()
    with Labelled.open(str(moved.labels)) as labelled:
        # Not "not this one", which calls-2.jsonl has under the same id: that dialogue was rejected.
        assert said(labelled)[1:5] == [("x", 0, "play rock"), ("x", 0, None), ("x", 1, "louder"), ("x", 1, None)]
        gone, missing = labelled.notes
    assert "calls-1.jsonl cannot be found" in gone
    assert "1 of the 2 dialogues" in missing


def test_a_log_that_has_changed_is_not_shown(moved: Any) -> None:
    with (moved.logs / "turns.jsonl").open("a") as file:
        file.write("\n")
    with Labelled.open(str(moved.labels)) as labelled:
        assert ask(labelled, "SELECT count(text), count(*) FROM turns WHERE starts_with(dialogue_id, 'x')") == [(2, 5)]
        assert "turns.jsonl has changed" in labelled.notes[0]


def test_a_dialogue_with_other_turns_than_were_labelled_is_not_shown(moved: Any) -> None:
    log = moved.logs / "calls-2.jsonl"
    line = json.dumps({"dialogue_id": "typed", "turns": [{"text": "a"}, {"text": "b"}]})
    log.write_text(line.ljust(log.stat().st_size))
    with Labelled.open(str(moved.labels)) as labelled:
        assert said(labelled)[0] == ("typed", 0, None)
        assert "Of 1 of the 2 dialogues" in labelled.notes[0]


def test_logs_need_not_be_read(moved: Any) -> None:
    shutil.rmtree(moved.logs)
    with Labelled.open(str(moved.labels), logs=False) as labelled:
        assert {text for _, _, text in said(labelled)} == {None}
        assert len(said(labelled)) == 6
        assert labelled.notes == ()


def test_a_limit_and_partitions_are_those_of_the_run(
    labelled_output: Any, tmp_path: Path, tiny_model_dir: Path
) -> None:
    store = ["--mlflow-tracking-uri", f"sqlite:///{labelled_output.labels}/mlflow.db"]
    output = ["--output", str(tmp_path / "out"), "--model", str(tiny_model_dir), "--no-progress", *store]
    label.run(["--input", str(LOGS), "--limit", "3", "--partition-by", "date", *output])
    with Labelled.open(str(tmp_path / "out")) as labelled:
        assert ask(labelled, "SELECT count(DISTINCT dialogue_id), bool_and(text IS NOT NULL) FROM turns") == [(3, True)]
        assert labelled.notes == ()


@pytest.mark.parametrize(
    "query",
    [
        "COPY turns TO '{labels}/turns/x.parquet'",
        "COPY (SELECT 1) TO '{labels}/run.json'",
        "ATTACH '{labels}/new.db'",
        "EXPORT DATABASE '{labels}/export'",
        "SELECT * FROM read_text('{labels}/run.json')",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ],
)
def test_no_query_reaches_a_file(opened: Labelled, labelled_output: Any, query: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in labelled_output.labels.rglob("*")}
    with pytest.raises(duckdb.Error):
        ask(opened, query.format(labels=labelled_output.labels))
    assert before == {path: path.stat().st_mtime_ns for path in labelled_output.labels.rglob("*")}


def test_nothing_is_left_behind(labelled_output: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Labelled.open(str(labelled_output.labels)):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_folder_without_labels_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        Labelled.open(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="There are no labels in"):
        Labelled.open(str(tmp_path))


def test_an_output_with_a_file_missing_is_a_mistake(moved: Any) -> None:
    next((moved.labels / "goals").rglob("*.parquet")).unlink()
    with pytest.raises(UserError, match=r"are missing in .* label its input again, by --input"):
        Labelled.open(str(moved.labels))


@pytest.fixture
def overtaken(moved: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the labels published anew, so many times, just before they are loaded."""
    real = labelled._load

    def publish_anew(run: str) -> None:
        output = str(moved.labels)
        manifest = next(publish.published(output))
        staging = Staging(f"{publish.dataset_folder(output, manifest.dataset)}/{run}")
        parts = []
        for index, part in enumerate(manifest.parts):
            parts.append(msgspec.structs.replace(part, path=f"{run}-{index}.parquet"))
            Path(staging.table(part.table)).mkdir(parents=True, exist_ok=True)
            shutil.copy(moved.labels / part.table / manifest.dataset / part.path, staging.part(parts[-1]))
        manifest = msgspec.structs.replace(manifest, run_id=run, parts=tuple(parts))
        publish.publish(output, staging, manifest, {})

    def overtake(times: int) -> None:
        runs = [f"run-{index}" for index in range(times)]

        def load(*arguments: Any, **options: Any) -> list[str]:
            if runs:
                publish_anew(runs.pop())
            return real(*arguments, **options)

        monkeypatch.setattr(labelled, "_load", load)

    return overtake


def test_labels_that_are_replaced_while_they_are_opened_are_opened_again(
    moved: Any, opened: Labelled, overtaken: Callable[[int], None]
) -> None:
    overtaken(1)
    with Labelled.open(str(moved.labels)) as again:
        assert said(again) == said(opened)
        assert "run-0" in {manifest.run_id for manifest in again.manifests}


def test_labels_that_are_replaced_all_the_time_are_said_to_be(moved: Any, overtaken: Callable[[int], None]) -> None:
    overtaken(100)
    with pytest.raises(UserError, match=r"are missing in .*: try again if a run is publishing there"):
        Labelled.open(str(moved.labels))


def test_a_damaged_file_is_one_sentence(moved: Any) -> None:
    next((moved.labels / "goals").rglob("*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(RunFailed, match="Cannot open the labels in"):
        Labelled.open(str(moved.labels))


def test_tables_of_another_version_are_a_mistake(moved: Any) -> None:
    for path in (moved.labels / "turns").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({b"faultline.label_schema_version": b"0.9"}), path)
    with pytest.raises(UserError, match=rf"version 0\.9, and .* reads {LABEL_SCHEMA_VERSION}"):
        Labelled.open(str(moved.labels))


def test_a_manifest_of_another_version_is_a_mistake(moved: Any) -> None:
    next((moved.labels / "runs").iterdir()).write_text("{}")
    with pytest.raises(UserError, match="is not a manifest that this version of Faultline reads"):
        Labelled.open(str(moved.labels))
