"""A user's mistake with a benchmark is one sentence."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("feedback", ["--init", "builtin", "--input", "none.jsonl", "--output", "out"]),
        ("simulated_logs", ["--input", "none.jsonl"]),
        ("transfer", ["--simulated", "none.jsonl", "--real", "none.jsonl", "--output", "out"]),
        ("scaling", ["--measure", "none.jsonl"]),
        ("garbage", ["--logs", "none.jsonl", "--folder", "out"]),
    ],
)
def test_a_log_that_is_not_there_is_one_sentence(
    script: str,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which scaling.py sets: it is put back after the test
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / f"{script}.py"), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "none.jsonl" in said
    assert "check the path" in said
    assert "Traceback" not in said
