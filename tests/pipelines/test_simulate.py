"""The job `faultline simulate`."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipelines import simulate
from pipelines.cli import main
from pipelines.simulation.calibration import DEFAULT_RATES
from pipelines.simulation.dialogue import Knobs
from schemas.formats import DialogueFormat, get_format
from schemas.log import FailurePoint

KNOBS = Knobs(wake=0.06, asr=0.7, nlu=0.07, er=0.3, result=0.05, telephone=0.25)


@pytest.mark.slow
def test_it_writes_logs_that_can_be_read(tmp_path: Path) -> None:
    summary = simulate.run(["--dialogues", "30", "--shards", "3", "--output", str(tmp_path / "logs-*.jsonl.gz")])
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"logs-0000{number}-of-00003.jsonl.gz" for number in range(3)]
    log_format = get_format("jsonl")
    assert isinstance(log_format, DialogueFormat)
    read = [log_format.parse(line)[0] for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert len({dialogue.dialogue_id for dialogue in read}) == summary.dialogues == 30
    assert sum(len(dialogue.turns) for dialogue in read) == summary.turns


@pytest.mark.slow
def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    options = ["--dialogues", "40", "--shards", "4", "--seed", "5"]
    simulate.run([*options, "--output", str(tmp_path / "one")])
    workers = ["--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    simulate.run([*options, "--output", str(tmp_path / "two"), *workers])
    first, second = ([file.read_bytes() for file in sorted((tmp_path / name).iterdir())] for name in ("one", "two"))
    assert len(first) == 4
    assert first == second


def test_a_finished_shard_is_not_done_again(tmp_path: Path) -> None:
    shard = simulate.Shard(path=str(tmp_path / "a.jsonl"), draft=str(tmp_path / "draft"), first=0, end=3)
    step = simulate.SimulateShard(KNOBS, seed=0)
    list(step.process(shard))
    written = (tmp_path / "draft").stat().st_mtime_ns
    list(step.process(shard))
    assert (tmp_path / "draft").stat().st_mtime_ns == written


def test_rates_that_are_not_named_keep_their_defaults() -> None:
    assert simulate.fault_rates("wake=0.1") == {**DEFAULT_RATES, FailurePoint.WAKE: 0.1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fault-rates", "speech=0.1"], "is not STAGE=RATE"),
        (["--fault-rates", "asr=0.9"], "no stage can fail that often"),
        (["--telephone", "1.5"], "is not a number from 0 to 1"),
        (["--telephone", "some"], "is not a number from 0 to 1"),
        (["--shards", "2", "--output", "one.jsonl"], "put a * in the file's name"),
        (["--shards", "99"], "ask for fewer files"),
        (["--output", "fol*der"], "must end with .jsonl or .jsonl.gz"),
        (["--output", "a*/b.jsonl"], "may have one * in the file's name"),
    ],
)
def test_a_mistake_is_one_sentence(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--dialogues", "10", "--output", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_it_does_not_mix_with_other_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dialogues-00000-of-00009.jsonl.gz").write_bytes(b"")
    assert main(["simulate", "--dialogues", "10", "--output", str(tmp_path)]) == 2
    assert "is already there and not of this run" in capsys.readouterr().err
