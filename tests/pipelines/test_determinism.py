"""The same input, model and options give the same files, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.chunks import Chunk
from pipelines.graph import CutFiles, Sessionise
from pipelines.label import run
from schemas.labels import TABLES


def parts(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for table in TABLES
        for path in output.glob(f"{table}/**/*.parquet")
    }


@pytest.mark.parametrize("input_format", ["jsonl", "turns"])
def test_the_order_in_which_chunks_are_done_changes_no_byte(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, input_format: str
) -> None:
    records = [
        {"dialogue_id": f"d{index % 35}", "turns": [{"text": "play some jazz"}] * (1 + index % 3)}
        if input_format == "jsonl"
        else {"session_id": f"s{index % 3}", "started_at": f"2024-05-01T09:{index:02}:00Z", "text": f"play {index}"}
        for index in range(40)
    ]
    for file, some in enumerate((records[:25], records[25:])):
        (tmp_path / f"{file}.jsonl").write_text("\n".join(map(json.dumps, some)))
    options = ["--model", str(tiny_model_dir), "--no-progress", "--chunk-bytes", "500", "--input-format", input_format]
    options += ["--input", str(tmp_path / "*.jsonl"), "--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    run([*options, "--output", str(tmp_path / "forwards")])
    longest = 0

    def backwards(real: Callable[..., Iterator[Chunk]]) -> Callable[..., Iterator[Chunk]]:
        def process(self: Any, element: Any) -> Iterator[Chunk]:
            nonlocal longest
            chunks = list(real(self, element))[::-1]
            longest = max(longest, len(chunks))
            yield from chunks

        return process

    for step in (CutFiles, Sessionise):
        monkeypatch.setattr(step, "process", backwards(step.process))
    run([*options, "--output", str(tmp_path / "backwards")])
    assert longest > 1
    assert parts(tmp_path / "backwards") == parts(tmp_path / "forwards")
