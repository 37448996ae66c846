"""What a person sees while a run works."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import progress
from pipelines.progress import RunProgress
from pipelines.results import ChunkResult, Counts
from pipelines.staging import Staging


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)


def finish(staging: Staging, chunk: str) -> None:
    counts = Counts(records=10, turns=1_000, source_bytes=50)
    staging.write_json(staging.result(chunk), ChunkResult(chunk=chunk, order=(0, 0), counts=counts, parts=[]))


@pytest.mark.parametrize("terminal", [True, False])
def test_turns_speed_and_time_left_are_shown(tmp_path: Path, terminal: bool) -> None:
    staging = Staging(str(tmp_path))
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with RunProgress(staging, 100, console, shown=True):
        finish(staging, "a")
        time.sleep(0.3)
    assert "50%" in out.getvalue()
    assert "1,000 turns · " in out.getvalue()
    assert "turns/s · 0 min 0" in out.getvalue()


def test_nothing_is_shown_if_not_wanted(tmp_path: Path) -> None:
    out = io.StringIO()
    with RunProgress(Staging(str(tmp_path)), 100, Console(file=out, force_terminal=True), shown=False):
        time.sleep(0.1)
    assert out.getvalue() == ""


def test_what_a_former_try_finished_is_not_this_ones_work(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path))
    finish(staging, "before")
    with RunProgress(staging, 100, Console(file=io.StringIO()), shown=False) as run:
        finish(staging, "now")
    assert run.labelled.turns == 1_000
