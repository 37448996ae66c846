"""What tests of the jobs need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pytest
import torch

from pipelines import publish, storage
from pipelines.publish import Manifest
from pipelines.results import RunSummary
from pipelines.staging import PARTITIONED, Staging
from schemas.labels import TABLES


class Output(NamedTuple):
    """A labelled output, and the folder with the logs that it was made of."""

    labels: Path
    logs: Path


SPOKEN: dict[str, Any] = {
    "dialogue_id": "x",
    "started_at": "2026-03-01T08:15:00Z",
    "locale": "en-GB",
    "device": "speaker",
    "user_id": "u1",
    "turns": [
        {
            "started_at": "2026-03-01T08:15:02Z",
            "asr": [{"text": "play jazz", "score": 0.6}, {"text": "pay jazz", "score": 0.3}],
            "nlu": [
                {"domain": "music", "intent": "play_music", "slots": [{"name": "genre", "value": "jazz"}], "score": 0.9}
            ],
            "entities": [{"slot": "genre", "value": "jazz", "entity_id": "g1", "name": "Jazz", "score": 0.8}],
            "response": {"text": "Here is jazz.", "action": "play", "status": "success"},
            "wake_score": 0.7,
            "barge_in": True,
        },
        {"text": "stop"},
    ],
}
TYPED: dict[str, Any] = {"dialogue_id": "typed", "turns": [{"text": "stop the music"}]}


@pytest.fixture(scope="session")
def labelled_output(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Output:
    """Two datasets by a model that knows nothing: calls in two files with rejects, and single turns.

    Both have a dialogue `x`. Do not write into it: copy it.
    """
    from pipelines import label

    folder = tmp_path_factory.mktemp("labelled")
    logs, labels = folder / "logs", folder / "out"
    logs.mkdir()
    again = [
        {**SPOKEN, "turns": [{"text": "not this one"}, {"text": "nor this"}]},
        {**TYPED, "turns": [{"text": "no"}]},
    ]
    calls = {
        "calls-1.jsonl": [json.dumps(SPOKEN), "{"],
        "calls-2.jsonl": [*map(json.dumps, [again[0], TYPED, again[1]])],
    }
    for name, lines in calls.items():
        (logs / name).write_text("\n".join(lines))
    events = [("11:00", "and pop"), ("09:00", "play rock"), ("09:01", "louder"), ("09:00", "play rock")]
    (logs / "turns.jsonl").write_text(
        "\n".join(
            json.dumps({"session_id": "x", "started_at": f"2026-03-02T{at}:00Z", "text": said, "device": "car"})
            for at, said in events
        )
    )
    output = ["--output", str(labels), "--model", str(tiny_model_dir), "--no-progress"]
    label.run(["--input", str(logs / "calls-*.jsonl"), "--max-reject-rate", "0.6", *output])
    label.run(["--input", str(logs / "turns.jsonl"), "--input-format", "turns", *output])
    return Output(labels, logs)


class Forked:
    """Starts `faultline` commands in processes of their own that need no time to start (forked.py says how)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asking = threading.Lock()
        root = Path(__file__).parents[2]
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked.py"))],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, *argv: object, **how: object) -> Running:
        log = self._folder / uuid.uuid4().hex
        return Running(self._ask({"start": {"argv": [*map(str, argv)], "log": str(log), **how}}), log, self)

    def __call__(self, *argv: object, **how: object) -> tuple[int, str]:
        """The exit code and what was said, its white space made single blanks."""
        return self.start(*argv, **how).ended()

    def poll(self, pid: int) -> int | None:
        return cast(int | None, self._ask({"ended": pid}))

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._asking:
            self._server.stdin.write(json.dumps(command) + "\n")
            self._server.stdin.flush()
            return json.loads(self._server.stdout.readline())


@dataclass(frozen=True)
class Running:
    """A command that was started."""

    pid: int
    log: Path
    forked: Forked

    def until_found(self, folder: Path, pattern: str) -> None:
        """Waits, while the command works, for a file."""
        while not list(folder.glob(pattern)):
            assert self.forked.poll(self.pid) is None, f"it has ended: {self.log.read_text()}"
            time.sleep(0.005)

    def ended(self, seconds: float = 120) -> tuple[int, str]:
        """Waits for its end: the exit code and what was said, its white space made single blanks."""
        until = time.monotonic() + seconds
        while (code := self.forked.poll(self.pid)) is None:
            assert time.monotonic() < until, f"it has not ended: {self.log.read_text()}"
            time.sleep(0.02)
        return code, " ".join(self.log.read_text().split())


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    started = Forked(tmp_path_factory.mktemp("forked"))
    yield started
    started.close()


@pytest.fixture
def stage() -> Callable[..., tuple[Staging, Manifest]]:
    """Leaves in an output what a run of `names` has when it is about to publish: a row a name in each table."""

    def stage_run(
        output: str, run: str, names: Sequence[str], dates: Sequence[str | None] = (None,)
    ) -> tuple[Staging, Manifest]:
        staging = Staging(storage.join(publish.dataset_folder(output, "dataset"), run))
        parts = [
            staging.write_part(f"chunk-{index}", table, date if table in PARTITIONED else None, rows)
            for table, schema in TABLES.items()
            for index, (name, date) in enumerate(product(names, dates))
            for rows in [row_of(schema, name)]
        ]
        summary = RunSummary(
            run_id=run,
            dataset="dataset",
            output=output,
            input_format="jsonl",
            model_uri="builtin",
            model_version="1",
            chunks=len(names),
            wall_seconds=1.0,
            turns_per_second=1.0,
        )
        inputs = ("log.jsonl",)
        manifest = Manifest(
            run_id=run, dataset="dataset", inputs=inputs, sources=(), settings={}, summary=summary, parts=tuple(parts)
        )
        return staging, manifest

    def row_of(schema: pa.Schema, name: str) -> pa.Table:
        first = schema.names[0]
        relaxed = pa.schema([field.with_nullable(True) for field in schema])
        return pa.Table.from_pylist([{first: name}], schema=relaxed)

    return stage_run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa of the smallest sizes, as transformers saves it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("roberta")
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    logs = Path(__file__).parents[1] / "logs" / "dialogues.jsonl"
    bpe.train([str(logs)], vocab_size=400, special_tokens=special)
    vocabulary, merges = bpe.save_model(str(tmp_path_factory.mktemp("bpe")))
    RobertaTokenizerFast(vocab=vocabulary, merges=merges).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=bpe.get_vocab_size(), max_position_embeddings=514, type_vocab_size=1, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
