"""What all command lines have in common."""

from __future__ import annotations

import os

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from pipelines.errors import UserError
from pipelines.options import OptionParser, use_the_machine

FOUR_WORKERS = ["--direct_num_workers=4", "--direct_running_mode=multi_processing"]


@pytest.mark.parametrize(
    ("options", "before", "expected"),
    [
        ([], None, None),
        (FOUR_WORKERS, None, "2"),
        (FOUR_WORKERS, "3", "3"),
        (["--direct_num_workers=4"], None, None),
        (["--processes=4"], None, "2"),
        (["--processes=1"], None, None),
    ],
    ids=["one process", "worker processes", "the user has chosen", "threads", "processes", "one"],
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


MIB = 2**20


@pytest.mark.parametrize(
    ("options", "size", "memory", "expected"),
    [
        ([], 63 * MIB, 64 * 2**30, (1, "in_memory")),
        ([], 200 * MIB, 64 * 2**30, (6, "multi_processing")),
        ([], 2**40, 64 * 2**30, (8, "multi_processing")),
        ([], 2**40, 7 * 2**30, (3, "multi_processing")),
        (["--processes=1"], 2**40, 64 * 2**30, (1, "in_memory")),
        (["--processes=2"], 2**40, 64 * 2**30, (2, "multi_processing")),
        (["--direct_num_workers=3"], 2**40, 64 * 2**30, (3, "in_memory")),
    ],
    ids=[
        "a small log",
        "a larger one",
        "a large one",
        "little memory",
        "one process",
        "two processes",
        "Beam's option",
    ],
)
def test_a_large_log_gets_the_processes_that_the_machine_has(
    options: list[str], size: int, memory: int, expected: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": memory // 4096}.__getitem__)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, parsed = OptionParser("faultline", "").parse_with_beam(options)
    use_the_machine(parsed, size)
    direct = parsed.view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == expected


def test_processes_are_of_this_machine() -> None:
    with pytest.raises(UserError, match="--processes goes with --runner FnApiRunner"):
        OptionParser("faultline", "").parse_with_beam(["--processes=2", "--runner=PortableRunner"])


def test_whoever_says_how_many_threads_gets_as_many_processes_as_the_cores_are_enough_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**30}.__getitem__)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    _, parsed = OptionParser("faultline", "").parse_with_beam([])
    use_the_machine(parsed, 2**40)
    assert parsed.view_as(DirectOptions).direct_num_workers == 2
