"""What all command lines have in common."""

from __future__ import annotations

import os

import pytest

from pipelines.options import OptionParser

FOUR_WORKERS = ["--direct_num_workers=4", "--direct_running_mode=multi_processing"]


@pytest.mark.parametrize(
    ("options", "before", "expected"),
    [([], None, None), (FOUR_WORKERS, None, "2"), (FOUR_WORKERS, "3", "3"), (["--direct_num_workers=4"], None, None)],
    ids=["one process", "worker processes", "the user has chosen", "threads"],
)
def test_worker_processes_share_the_cores(
    options: list[str], before: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    # Set first, so that what the parser sets is undone afterwards.
    monkeypatch.setenv("OMP_NUM_THREADS", before or "")
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    OptionParser("faultline", "").parse_with_beam(options)
    assert os.environ.get("OMP_NUM_THREADS") == expected
