"""What a job may not do: ask the network, unpickle, write where a log says, tell a password."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from encoders.checkpoints import CheckpointError, roberta
from labelers.model import MANIFEST, WEIGHTS, Model, ModelError
from pipelines.cli import main
from pipelines.credentials import without_secrets
from pipelines.logs import read_logs

ESCAPES = [
    "../../../escaped",
    "/tmp/escaped-from-faultline",
    "a/../../b",
    "nul\0byte",
    "..",
    "x\\..\\y",
    "-rf",
    "é\u202e",
]
"""Ids that are paths, or would be if anybody took them for one."""
UNDER_WATCH = """
import json, sys

HERE = ("localhost", "127.0.0.1", "::1", None)
asked = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in HERE:
            asked.append([event, str(address)])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"):
        if arguments[0] not in HERE:
            asked.append([event, str(arguments[0])])

sys.addaudithook(watch)
from pipelines.cli import main

for command in json.loads(sys.argv[1]):
    if main(command) != 0:
        sys.exit(f"{command} failed")
# The proof that the watch sees it; of an address in figures nobody is asked.
import socket

socket.getaddrinfo("192.0.2.1", 9)
sys.stderr.write("ASKED " + json.dumps(asked))
"""


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> tuple[Path, list[Any]]:
    """The folder in which every job has run on logs with odd ids, and what of the network they asked for."""
    folder = tmp_path_factory.mktemp("jail") / "in" / "there"
    folder.mkdir(parents=True)
    odd = [
        {"dialogue_id": name, "user_id": name, "turns": [{"text": "play jazz", "turn_id": name}]} for name in ESCAPES
    ]
    (folder / "odd.jsonl").write_text("\n".join(map(json.dumps, odd)))
    events = [{"session_id": name, "started_at": "2026-03-01T08:15:00Z", "text": "stop"} for name in ESCAPES]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    model = ["--model", str(tiny_model_dir)]
    out = ["--output", "out", *model, "--no-progress"]
    commands = [
        ["simulate", "--dialogues", "6", "--output", "simulated.jsonl", "--shards", "1"],
        ["label", "--input", "odd.jsonl", "--input", "simulated.jsonl", *out],
        ["label", "--input", "events.jsonl", "--input-format", "turns", "--partition-by", "date", *out],
        ["query", "--labels", "out", "SELECT count(*) FROM turns"],
        ["report", "--labels", "out", "--explain", "1"],
        ["export", "--labels", "out", "--to", "label-studio", "--output", "tasks"],
        ["drift", "--labels", "out", "--reference", "out"],
        [
            "evaluate",
            "--input",
            "simulated.jsonl",
            "--part",
            "all",
            *model,
            "--resamples",
            "10",
            "--output",
            "evaluation",
        ],
    ]
    done = subprocess.run(
        [sys.executable, "-c", UNDER_WATCH, json.dumps(commands)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, json.loads(done.stderr.rpartition("ASKED ")[2])


@pytest.mark.slow
def test_no_job_asks_the_network(worked: tuple[Path, list[Any]]) -> None:
    assert worked[1] == [["socket.getaddrinfo", "192.0.2.1"]]


@pytest.mark.slow
def test_no_text_of_a_log_becomes_a_path(worked: tuple[Path, list[Any]]) -> None:
    folder, _ = worked
    assert [path.name for path in folder.parent.parent.iterdir()] == ["in"]
    assert [path.name for path in folder.parent.iterdir()] == ["there"]
    expected = {"odd.jsonl", "events.jsonl", "simulated.jsonl", "out", "tasks", "evaluation"}
    assert {path.name for path in folder.iterdir()} == expected
    assert not Path("/tmp/escaped-from-faultline").exists()
    written = pq.read_table(folder / "out" / "dialogues", partitioning=None)["dialogue_id"].to_pylist()
    assert sorted(name for name in written if name in ESCAPES) == sorted([*ESCAPES, *ESCAPES])


class Bomb:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


_unpickled: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "pickle.find_class":
        _unpickled.append(".".join(map(str, arguments)))


sys.addaudithook(_watch)


@pytest.fixture
def unpickled() -> Iterator[list[str]]:
    """What is unpickled while the test runs."""
    global _watching
    _unpickled.clear()
    _watching = True
    yield _unpickled
    _watching = False


def test_the_watch_sees_what_is_unpickled(unpickled: list[str], tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "made")))
    assert unpickled
    assert (tmp_path / "made").exists()


def test_a_model_is_loaded_and_a_log_read_without_unpickling(
    unpickled: list[str], tmp_path: Path, tiny_model_dir: Path
) -> None:
    frame = pd.DataFrame({"dialogue_id": ["a"], "turns": [[{"text": "play jazz"}]]}, index=["named"])
    # What pandas and PyArrow keep in a file's metadata, and a pickle where somebody would have one read.
    metadata = {b"pandas": b"{}", b"pickle": pickle.dumps(Bomb(tmp_path / "made"))}
    table = pa.Table.from_pandas(frame)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}), tmp_path / "a.parquet")
    Model.load(tiny_model_dir)
    assert [each.dialogue_id for each in read_logs([str(tmp_path / "a.parquet")], "parquet").dialogues] == ["a"]
    assert unpickled == []
    assert not (tmp_path / "made").exists()


def pickled(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": Bomb(path)}, buffer)
    return buffer.getvalue()


def test_a_pickle_in_place_of_weights_is_refused(unpickled: list[str], tmp_path: Path, tiny_model_dir: Path) -> None:
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / WEIGHTS).write_bytes(pickled(tmp_path / "made"))
    with pytest.raises(ModelError, match="is not the file that was saved"):
        Model.load(folder)
    digests = json.loads((folder / MANIFEST).read_text())
    digests[WEIGHTS] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(digests))
    with pytest.raises(ModelError, match="cannot be read"):
        Model.load(folder)
    assert unpickled == []
    assert not (tmp_path / "made").exists()


def test_an_encoder_that_is_a_pickle_or_has_code_is_refused(unpickled: list[str], tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickled(tmp_path / "made"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 5, "hidden_size": 16}))
    with pytest.raises(CheckpointError, match="cannot be loaded as a RoBERTa checkpoint"):
        roberta(str(tmp_path))
    (tmp_path / "own.py").write_text("raise SystemExit('this code was run')")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(CheckpointError, match="cannot be loaded as a RoBERTa checkpoint"):
        roberta(str(tmp_path))
    assert unpickled == []
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:hunter2@db/x", "postgresql://…@db/x"),
        ("http://ann:p/w@hunter2@host:5000", "http://…@host:5000"),
        ("https://hunter2@host/x and s3://bucket/a@b", "https://…@host/x and s3://bucket/a@b"),
        ("https://h/x?sig_token=hunter2&page=2", "https://h/x?sig_token=…&page=2"),
        ("https://h/x?X-Amz-Signature=hunter2", "https://h/x?X-Amz-Signature=…"),
        ("mail ann@example.org", "mail ann@example.org"),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.fixture
def labelling(tmp_path: Path, tiny_model_dir: Path) -> list[str]:
    (tmp_path / "a.jsonl").write_text('{"dialogue_id": "a", "turns": [{"text": "play"}]}')
    given = ["--input", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out"), "--model", str(tiny_model_dir)]
    return ["label", *given, "--no-progress"]


def test_a_password_of_the_tracking_server_is_written_nowhere(
    labelling: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*labelling, "--mlflow-tracking-uri", "nosuchdb://ann:hunter2@127.0.0.1:9/x"]) == 0
    assert "send it later with: faultline track" in capfd.readouterr().err
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"run.json", "README.md"} <= {path.name for path in files}
    assert any(path.parent.name == "untracked" for path in files)
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_a_dry_run_shows_no_secret(labelling: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    secrets = ["--mlflow-tracking-uri", "postgresql://ann:hunter2@db/x", "--s3_secret_access_key", "hunter2"]
    assert main([*labelling, *secrets, "--dry-run"]) == 0
    shown = capfd.readouterr()
    assert "s3_secret_access_key" in shown.out
    assert "hunter2" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--input", "https://ann:hunter2@host/a.jsonl"], "--input has a user or a password in its address"),
        (["--output", "s3://key:hunter2@bucket/out"], "--output has a user or a password in its address"),
        (["--s3_secret_acess_key=hunter2"], "did you mean --s3_secret_access_key"),
    ],
)
def test_a_secret_in_a_wrong_place_is_refused_and_not_repeated(
    labelling: list[str], capfd: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main([*labelling, *more]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "hunter2" not in error
    assert error.count("\n") == 1
