"""Hostile logs through a whole run of `faultline label`: it ends, in bounded memory, and no record is lost."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.log import ID_LIMIT, SLOT_LIMIT, TURN_LIMIT

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT = 1_500
"""MiB that a run may take. An ordinary run with the tiny model takes about 800: PyTorch, Beam, MLflow and the rest."""

RUN = """
import resource, sys
from pipelines.cli import main
code = main(sys.argv[1:])
print("MiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
sys.exit(code)
"""


class Outcome(NamedTuple):
    rejected: dict[tuple[str, int], str]
    """Reason by file and position."""
    dialogues: dict[str, int]
    """Turns by id."""
    memory: int
    """MiB at the peak."""


Label = Callable[..., Outcome]


@pytest.fixture(scope="module")
def label(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Label:
    def run(folder: Path, *options: str) -> Outcome:
        output = tmp_path_factory.mktemp("out")
        command = ["label", "--input", str(folder / "*"), "--output", str(output), "--model", str(tiny_model_dir)]
        command += ["--no-progress", "--max-reject-rate", "1", *options]
        done = subprocess.run(
            [sys.executable, "-c", RUN, *command], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr
        rejected = duckdb.sql(
            f"SELECT source, position, reason, message FROM '{output}/rejected/**/*.parquet'"
        ).fetchall()
        assert all(message and not message.startswith("the reader of") for *_, message in rejected)
        places = {(Path(source).name, position): reason for source, position, reason, _ in rejected}
        assert len(places) == len(rejected)
        dialogues = duckdb.sql(f"SELECT dialogue_id, turn_count FROM '{output}/dialogues/**/*.parquet'").fetchall()
        assert len(dict(dialogues)) == len(dialogues)
        turns = duckdb.sql(f"SELECT count(*) FROM '{output}/turns/**/*.parquet'").fetchall()
        assert turns == [(sum(dict(dialogues).values()),)]
        return Outcome(places, dict(dialogues), int(done.stdout.split()[-1]))

    return run


def dialogue(name: str, *turns: Mapping[str, Any], **more: Any) -> bytes:
    return json.dumps({"dialogue_id": name, "turns": turns or [{"text": "play"}], **more}).encode()


def nlu(*hypotheses: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"text": "play jazz", "nlu": hypotheses}


RECORDS: list[tuple[bytes, str | None]] = [
    (dialogue("cut")[:-9], "invalid_json"),
    (b'{"dialogue_id": "latin", "turns": [{"text": "caf\xe9"}]}', "invalid_utf8"),
    (
        b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b', "dialogue_id": "a", "turns": [{"text": "a"}]}',
        "invalid_json",
    ),
    (b'{"deep": ' + b'{"a":' * 100_000, "invalid_json"),
    (b'{"dialogue_id": "large", "turns": [{"text": "a", "wake_score": 1e400}]}', "wrong_type"),
    (b'{"dialogue_id": "long", "turns": [{"text": "a", "wake_score": ' + b"9" * 5_000 + b"}]}", "wrong_type"),
    (b'{"dialogue_id": "nan", "turns": [{"text": "a", "wake_score": NaN}]}', "invalid_json"),
    (b'{"dialogue_id": "inf", "turns": [{"text": "a", "wake_score": -Infinity}]}', "invalid_json"),
    (dialogue("largest", {"text": "a", "asr": [{"text": "a", "score": 1e308}, {"text": "b", "score": -1e308}]}), None),
    (b'{"dialogue_id": ["typed"], "turns": "none"}', "wrong_type"),
    (dialogue("controls\x00\n\x1b[31m", {"text": "\x00\x01\x7f\x85\u2028"}, {"text": "\x00"}), None),
    (dialogue("\u202eltr\u202c", {"text": "\u202eplay\u202c \u200f\u2066 \ufeff"}), None),
    (b'{"dialogue_id": "half", "turns": [{"text": "a \\ud800 b"}]}', "invalid_json"),
    (b'{"dialogue_id": "nul", \x00"turns": [{"text": "a"}]}', "invalid_json"),
    (b"\x00" * 1_000, "invalid_json"),
    (dialogue("token", {"text": "x" * 1_000_000}), None),
    (dialogue("marks", {"text": "e" + "\u0301" * 500_000}, {"text": "👩‍👩‍👧‍👦" * 40_000}), None),
    (dialogue("i" * ID_LIMIT), None),
    (dialogue("i" * 1_000_000, *[{"text": "a"}] * 10_000), "invalid_value"),
    (
        dialogue("names", nlu({"intent": "i" * 200_000, "domain": "\x00", "slots": [{"name": "\u202e", "value": ""}]})),
        None,
    ),
    (
        dialogue(
            "turns",
            *[{"text": f"play {index}", "nlu": [{"intent": f"play {index % 10_000}"}]} for index in range(TURN_LIMIT)],
        ),
        None,
    ),
    (dialogue("too many turns", *[{"text": "a"}] * (TURN_LIMIT + 1)), "record_too_large"),
    (dialogue("n-best", {"asr": [{"text": f"play {index}", "score": -index} for index in range(10_000)]}), None),
    (dialogue("slots", nlu({"slots": [{"name": "a", "value": f"jazz {index}"} for index in range(SLOT_LIMIT)]})), None),
    (dialogue("too many slots", nlu({"slots": [{"name": "a", "value": "b"}] * (SLOT_LIMIT + 1)})), "record_too_large"),
    (dialogue("entities", {"text": "a", "entities": [{"slot": "a", "score": 0.1}] * 10_000}), None),
    (
        b'{"dialogue_id": "first", "dialogue_id": "last", "turns": [{"text": "a"}], "turns": [{"text": "b"}]}',
        None,
    ),
    (b"\xef\xbb\xbf" + dialogue("mark"), "invalid_json"),
    (
        dialogue("times", {"text": "a", "started_at": "0001-01-01T00:00:00Z"}, {"text": "b", "ended_at": "9999-12-31"}),
        "wrong_type",
    ),
    (
        dialogue(
            "ages",
            {"text": "a", "started_at": "0001-01-01T00:00:00Z"},
            {"text": "b", "started_at": "9999-12-31T23:59:59Z"},
        ),
        None,
    ),
    (dialogue("../../../etc/passwd"), None),
    # Of the dialogues that have a time most must have one that can be.
    (dialogue("in time", started_at="2026-03-01T08:00:00Z"), None),
    (dialogue("in time too", started_at="2026-03-01T08:00:00Z"), None),
    (b"[" + dialogue("in a list") + b"]", "wrong_type"),
    (b'"' + b"a" * 1_000_000, "invalid_json"),
    (b'{"dialogue_id": "empty turns", "turns": [' + b"{}," * 10_000 + b"{}]}", "missing_text"),
    (dialogue("the last"), None),
]


@pytest.mark.slow
def test_hostile_records_are_each_labelled_or_rejected(tmp_path: Path, label: Label) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(record for record, _ in RECORDS))
    outcome = label(tmp_path)
    expected = {("log.jsonl", line): reason for line, (_, reason) in enumerate(RECORDS, start=1) if reason}
    assert outcome.rejected == expected
    assert len(outcome.dialogues) == len(RECORDS) - len(expected)
    assert outcome.dialogues["turns"] == TURN_LIMIT
    assert "last" in outcome.dialogues
    assert outcome.memory < MEMORY_LIMIT


def zip_of(content: bytes, times: int) -> bytes:
    """What gzip makes of `content` that many times, without it being held."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(content) for _ in range(times)), packer.flush()])


def parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> None:
    pq.write_table(pa.table(columns), path, **options)


@pytest.mark.slow
def test_files_that_expand_or_break_are_read_in_bounded_memory(tmp_path: Path, label: Label) -> None:
    good = dialogue("good")
    zeros = zip_of(b"\x00" * (1 << 20), 768)
    assert len(zeros) < 2 << 20
    (tmp_path / "zeros.gz").write_bytes(zeros)
    (tmp_path / "zeros-between.gz").write_bytes(
        gzip.compress(good + b"\n") + zip_of(b"\x00" * (1 << 20), 32) + gzip.compress(b"\n" + dialogue("after"))
    )
    (tmp_path / "intents.jsonl").write_bytes(
        dialogue("intents", nlu(*[{"intent": f"intent_{index}"} for index in range(10_000)]))
    )
    (tmp_path / "line-ends.gz").write_bytes(zip_of(b"\n" * (1 << 20), 20))
    (tmp_path / "again.jsonl.gz").write_bytes(zip_of(dialogue("again") + b"\n", 5_000))
    (tmp_path / "objects.jsonl.gz").write_bytes(
        gzip.compress(b'{"dialogue_id": "o", "turns": [' + b"{}," * 5_000_000 + b"{}]}")
    )
    (tmp_path / "numbers.json.gz").write_bytes(
        gzip.compress(b"[" + zlib.decompress(zlib.compress(b"0," * 20_000)) + b"0]")
    )
    (tmp_path / "one-element.json.gz").write_bytes(gzip.compress(b"[" + b'["' + b"a" * (100 << 20) + b'"]]'))
    (tmp_path / "utf-16.jsonl").write_bytes((good + b"\n" + good).decode().encode("utf-16"))
    (tmp_path / "torn.json").write_bytes(
        b"[" + dialogue("torn") + b", {bad}, " + dialogue("torn too") + b', {"dialogue_id": "c'
    )
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000, np.int32)), pa.array(["x" * 1_000_000]))
    turns = pa.StructArray.from_arrays([text], names=["text"])
    offsets = pa.array([0, 1, 2, 50_000], pa.int32())
    parquet(
        tmp_path / "dictionary.parquet",
        {"dialogue_id": ["small", "small too", "bomb"], "turns": pa.ListArray.from_arrays(offsets, turns)},
    )
    parquet(
        tmp_path / "numbers.parquet",
        {
            "dialogue_id": ["a"],
            "n": pa.ListArray.from_arrays(
                pa.array([0, 10_000_000], pa.int32()), pa.array(np.zeros(10_000_000, np.int8))
            ),
        },
    )
    parquet(
        tmp_path / "decimals.parquet",
        {"dialogue_id": pa.array([1, 2], pa.decimal128(38, 9)), "turns": [[{"text": "a"}]] * 2},
    )
    parquet(
        tmp_path / "nulls.parquet",
        {"dialogue_id": ["n1", "n2", None], "turns": [[{"text": "a", "asr": None}, {"text": None}], [None], None]},
    )
    parquet(
        tmp_path / "times.parquet",
        {
            "dialogue_id": ["t1", "t2"],
            "turns": [[{"text": "a"}]] * 2,
            "started_at": pa.array([1_772_000_000_000_000, 2**62], pa.timestamp("us")),
        },
    )
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "times.parquet").read_bytes()[:-9])
    (tmp_path / "zip-in-zip.gz").write_bytes(gzip.compress(zeros[:10_000]))
    outcome = label(tmp_path)
    by_file: dict[str, list[str]] = {}
    for (name, _), reason in sorted(outcome.rejected.items()):
        by_file.setdefault(name, []).append(reason)
    assert set(by_file.pop("zip-in-zip.gz")) <= {"invalid_json", "invalid_utf8"}
    assert by_file == {
        "again.jsonl.gz": ["duplicate_id"] * 4_999,
        "decimals.parquet": ["wrong_type"] * 2,
        "dictionary.parquet": ["record_too_large"],
        "nulls.parquet": ["missing_text", "wrong_type", "missing_field"],
        "numbers.json.gz": ["wrong_type"] * 20_001,
        "numbers.parquet": ["record_too_large"],
        "objects.jsonl.gz": ["record_too_large"],
        "one-element.json.gz": ["record_too_large"],
        "times.parquet": ["invalid_value"],
        "torn.json": ["invalid_json", "truncated_file"],
        "torn.parquet": ["truncated_file"],
        "utf-16.jsonl": ["invalid_utf8", "invalid_json"],
        "zeros-between.gz": ["record_too_large"],
        "zeros.gz": ["record_too_large"],
    }
    assert set(outcome.dialogues) == {
        "again",
        "good",
        "intents",
        "after",
        "torn",
        "torn too",
        "small",
        "small too",
        "t1",
    }
    assert outcome.memory < MEMORY_LIMIT


@pytest.mark.slow
def test_single_turns_that_expand_are_grouped_in_bounded_memory(tmp_path: Path, label: Label) -> None:
    turn = json.dumps({"session_id": "one", "started_at": "2026-03-01T08:00:00Z", "text": "x" * 1_000}).encode()
    other = [turn.replace(b'"one"', b'"%d"' % number) for number in range(50)]
    (tmp_path / "turns.gz").write_bytes(zip_of(b"\n".join([turn, *other, b"{", b""]), 300))
    outcome = label(tmp_path, "--input-format", "turns")
    assert len(outcome.dialogues) == 51
    assert len(outcome.rejected) == 15_600 - 51
    assert outcome.memory < MEMORY_LIMIT
