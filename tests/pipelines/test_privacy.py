"""What --pseudonymize and --redact let out: nothing of a log's ids and numbers, in whatever a job writes."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines import label, report
from pipelines.cli import main
from pipelines.labelled import Labelled
from pipelines.privacy import KEY, KEY_FILE, LEFT_OUT, Id, Privacy
from schemas.formats import DialogueFormat, get_format
from schemas.log import ID_LIMIT, TURN_LIMIT, Dialogue
from schemas.rejects import RecordError

THE_KEY = "a key that only this test has"
EMAIL, PHONE = "anna.b@example.org", "+1 415 555 2671"
CALLS: list[Any] = [
    {
        "dialogue_id": "call-of-anna",
        "user_id": "user-anna",
        "device": "serial-4711",
        "turns": [
            {
                "asr": [{"text": f"call {PHONE}", "score": 0.4}, {"text": f"tall {PHONE}", "score": 0.3}],
                "nlu": [{"domain": "calls", "intent": "call", "slots": [{"name": "number", "value": PHONE}]}],
                "entities": [{"slot": "number", "value": PHONE, "name": PHONE, "entity_id": f"tel:{PHONE}"}],
                "response": {"text": f"Calling {PHONE}.", "action": "call", "status": "failure"},
            },
            {"text": f"no, write to {EMAIL}", "response": {"text": "Sorry, I did not get that."}},
        ],
    },
    {"dialogue_id": "second-of-anna", "user_id": "user-anna", "turns": [{"text": "stop"}]},
    {"dialogue_id": "call-of-anna", "turns": [{"text": f"again {EMAIL}"}]},
    {"dialogue_id": "empty-of-anna", "user_id": "user-anna", "turns": []},
    {"dialogue_id": "odd-of-anna", "turns": [{"text": "call", "feedback": PHONE}]},
]
IDS = ["call-of-anna", "second-of-anna", "empty-of-anna", "odd-of-anna", "user-anna", "serial-4711"]


def pseudonym(value: str) -> str:
    """As the README says that anybody with the key can make it."""
    return hmac.new(THE_KEY.encode(), value.encode(), hashlib.sha256).hexdigest()[:32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    (folder / "calls.jsonl").write_text("\n".join(map(json.dumps, CALLS)))
    return folder


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, THE_KEY)


def command(folder: Path, model: Path, output: str, *more: str) -> list[str]:
    given = ["--input", str(folder / "calls.jsonl"), "--output", str(folder / output), "--model", str(model)]
    return [*given, "--no-progress", "--max-reject-rate", "0.9", *more]


@pytest.fixture(scope="module")
def output(folder: Path, tiny_model_dir: Path) -> Path:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(KEY, THE_KEY)
        label.run(command(folder, tiny_model_dir, "out", "--pseudonymize", "--redact"))
    return folder / "out"


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file with all that it says."""
    for path in (each for each in folder.rglob("*") if each.is_file()):
        if path.suffix == ".parquet":
            yield path, str(pq.read_table(path).to_pylist())
        else:
            yield path, path.read_bytes().decode("latin-1")


def rows(output: Path, table: str, columns: str) -> list[Any]:
    return duckdb.sql(f"SELECT {columns} FROM '{output}/{table}/**/*.parquet' ORDER BY ALL").fetchall()


def test_no_id_and_no_number_is_in_any_file_of_the_output(output: Path) -> None:
    files = dict(texts(output))
    assert {path.name for path in files} >= {"run.json", "validation.json", "mlflow.db", "README.md"}
    for path, text in files.items():
        for secret in (*IDS, EMAIL, PHONE, PHONE[3:], THE_KEY):
            assert secret not in text, path


def test_one_id_has_one_pseudonym_that_the_key_gives(output: Path) -> None:
    assert rows(output, "dialogues", "dialogue_id") == sorted(
        [(pseudonym("call-of-anna"),), (pseudonym("second-of-anna"),)]
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(KEY, THE_KEY)
        with Labelled.open(str(output)) as labelled:
            found = labelled.connection.execute("SELECT user_id, device FROM dialogues ORDER BY device").fetchall()
    assert found == [(pseudonym("user-anna"), pseudonym("serial-4711")), (pseudonym("user-anna"), None)]


def test_what_was_rejected_and_why_is_still_told(output: Path) -> None:
    [repeated, empty, odd] = rows(output, "rejected", "position, reason, message, raw")
    assert repeated[:2] == (3, "duplicate_id")
    assert repeated[2] == f"dialogue {pseudonym('call-of-anna')} came earlier in the input"
    assert empty[:3] == (4, "no_turns", "Expected `array` of length >= 1 - at `$.turns`")
    assert odd[:3] == (5, "wrong_type", f"Invalid enum value '{'*' * len(PHONE)}' - at `$.turns[0].feedback`")
    assert {each[3] for each in (repeated, empty, odd)} == {LEFT_OUT}


@pytest.mark.usefixtures("key")
def test_the_logs_are_shown_beside_the_labels_masked_at_their_places(output: Path) -> None:
    with Labelled.open(str(output)) as labelled:
        assert labelled.notes == ()
        found = labelled.connection.execute("SELECT text, response, asr, nlu, entities, slots FROM turns").fetchall()
    hidden = "*" * len(PHONE)
    [(text, response, asr, nlu, entities, _)] = [row for row in found if row[0].startswith("call")]
    assert (text, response) == (f"call {hidden}", f"Calling {hidden}.")
    assert [each["text"] for each in asr] == [f"call {hidden}", f"tall {hidden}"]
    assert nlu[0]["slots"][0]["value"] == entities[0]["value"] == entities[0]["name"] == hidden
    for text, *_, slots in found:
        assert all(slot["value"] == text[slot["start"] : slot["end"]] for slot in slots if slot["start"] is not None)


@pytest.mark.usefixtures("key")
def test_the_page_and_the_tasks_for_people_hide_the_same(output: Path, folder: Path) -> None:
    page, tasks = folder / "page.html", folder / "tasks"
    store = f"sqlite:///{output / 'mlflow.db'}"
    report.run(["--labels", str(output), "--output", str(page), "--explain", "3", "--mlflow-tracking-uri", store])
    assert main(["export", "--labels", str(output), "--to", "label-studio", "--output", str(tasks)]) == 0
    written = [page.read_text(), *(path.read_text() for path in tasks.iterdir())]
    assert pseudonym("call-of-anna") in written[0]
    for text in written:
        assert not [secret for secret in (*IDS, EMAIL, PHONE) if secret in text]


def test_the_labels_are_decided_on_what_was_said(output: Path, folder: Path, tiny_model_dir: Path) -> None:
    label.run(command(folder, tiny_model_dir, "plain"))
    decided = "turn_index, intent, failure_point, defect_probability, len(slots)"
    assert rows(output, "turns", decided) == rows(folder / "plain", "turns", decided)


@pytest.mark.parametrize("environment", [{}, {KEY: "another key than that of the run"}], ids=["no key", "another"])
def test_without_the_runs_key_the_logs_are_not_shown(
    output: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Labelled.open(str(output)) as labelled:
        assert len(labelled.notes) == 1
        assert "pseudonyms" in labelled.notes[0]
        assert KEY in labelled.notes[0]
        found = labelled.connection.execute("SELECT DISTINCT text, user_id FROM turns").fetchall()
    assert found == [(None, None)]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, f"put it into the environment variable {KEY}"),
        ({KEY: "short"}, "has 5 bytes"),
        ({KEY_FILE: "/no/such/file"}, f"Cannot read {KEY_FILE} /no/such/file"),
    ],
)
def test_without_a_good_key_nothing_is_written(
    folder: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    environment: dict[str, str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["label", *command(folder, tiny_model_dir, "none", "--pseudonymize")]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "none").exists()


def test_a_key_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, os.fsdecode(b"\xe9" * 16))
    expected = hmac.new(b"\xe9" * 16, b"x", hashlib.sha256).hexdigest()[:32]
    assert Privacy.of([Id.DIALOGUE_ID], redact=False).dialogue_id("x") == expected


def test_a_key_in_a_file_is_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{THE_KEY}\n")
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "key"))
    assert Privacy.of([Id.DIALOGUE_ID], redact=False).dialogue_id("x") == pseudonym("x")


@pytest.mark.usefixtures("key")
def test_the_dialogues_of_a_session_stay_together() -> None:
    hidden = Privacy.of([Id.DIALOGUE_ID], redact=False)
    assert [hidden.dialogue_id(each) for each in ("s", "s#2", "s#12")] == [
        pseudonym("s"),
        f"{pseudonym('s')}#2",
        f"{pseudonym('s')}#12",
    ]


@pytest.mark.usefixtures("key")
def test_the_number_in_an_id_is_hidden_with_it() -> None:
    call = "call#4155551234"
    hidden = Privacy.of(list(Id), redact=False)
    assert [hidden.dialogue_id(each) for each in (call, f"{call}#2")] == [pseudonym(call), f"{pseudonym(call)}#2"]
    dialogue = hidden.hide_ids(Dialogue(dialogue_id=call, turns=[], user_id="user#7", device="speaker#2"))
    assert dialogue.dialogue_id == hidden.dialogue_id(call)
    assert (dialogue.user_id, dialogue.device) == (pseudonym("user#7"), pseudonym("speaker#2"))


@pytest.mark.usefixtures("key")
def test_fields_that_are_not_asked_for_stay() -> None:
    jsonl = get_format("jsonl")
    assert isinstance(jsonl, DialogueFormat)
    [dialogue] = jsonl.parse(json.dumps(CALLS[0]).encode())
    hidden = Privacy.of([Id.USER_ID], redact=False).hide_ids(dialogue)
    assert (hidden.dialogue_id, hidden.user_id, hidden.device) == (
        "call-of-anna",
        pseudonym("user-anna"),
        "serial-4711",
    )


@pytest.mark.parametrize(
    ("log_format", "record"),
    [
        ("jsonl", {"dialogue_id": "anna", "turns": [{"text": "a"}] * (TURN_LIMIT + 1)}),
        ("jsonl", {"dialogue_id": "anna" * ID_LIMIT, "turns": [{"text": "a"}]}),
        ("multiwoz", {"anna": {"log": [{"text": " "}]}}),
        ("turns", {"session_id": "anna" * ID_LIMIT, "started_at": "2026-03-01T08:15:02Z", "text": "a"}),
    ],
)
def test_why_a_record_was_rejected_names_no_id(log_format: str, record: object) -> None:
    reader = get_format(log_format)
    parse: Any = reader.parse if isinstance(reader, DialogueFormat) else reader.parse_event
    with pytest.raises(RecordError) as error:
        parse(json.dumps(record).encode())
    assert "anna" not in error.value.message


def test_the_settings_tell_nothing_of_a_key(output: Path) -> None:
    told = json.loads((output / "run.json").read_text())["settings"]["privacy"]
    assert told["pseudonymize"] == list(Id)
    assert len(told["key_id"]) == 8
