"""`faultline label`, killed with SIGKILL wherever it may be, and started again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient

from schemas.labels import TABLES

MOMENTS = 25
SEED = 6


def write_log(path: Path, names: list[str], text: str) -> None:
    turns = [{"text": each} for each in (text, "no, i said jazz", "stop")]
    path.write_text("".join(json.dumps({"dialogue_id": name, "turns": turns}) + "\n" for name in names) + "{\n")


def tables(output: Path) -> dict[str, dict[str, str]]:
    """By table what a reader of its glob finds: each part with its digest."""
    return {
        table: {
            str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in output.glob(f"{table}/**/*.parquet")
        }
        for table in TABLES
    }


class Job(NamedTuple):
    """A job whose input has changed since its output was labelled."""

    options: list[str]
    former: Path
    """The output of before the change."""
    unbroken: Path
    """That output after a run that nobody killed."""
    operations: list[str]
    """The file operations of that run."""

    def command(self, output: Path) -> list[str]:
        return ["label", "--output", str(output), *self.options]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, forked: Any) -> Job:
    folder = tmp_path_factory.mktemp("kill")
    log, events = folder / "log.jsonl", folder / "events"
    options = ["--input", str(log), "--model", str(tiny_model_dir), "--no-progress", "--chunk-bytes", "1500"]
    job = Job(options, folder / "former", folder / "unbroken", [])
    write_log(log, [f"d{index}" for index in range(80)], "play some jazz")
    assert forked(*job.command(job.former))[0] == 0
    # Of the last chunk an id was there before, so it is labelled once more.
    write_log(log, [*(f"d{index}" for index in range(100)), "d3"], "play a song")
    shutil.copytree(job.former, job.unbroken)
    assert forked(*job.command(job.unbroken), watched=str(job.unbroken), events=str(events))[0] == 0
    return job._replace(operations=events.read_text().splitlines())


def moments(operations: list[str]) -> list[tuple[str, int]]:
    """Operations before which to kill, by chance, as many in each phase of the run."""

    def first(*what: str, start: int = 0) -> int:
        return next(index for index in range(start, len(operations)) if all(each in operations[index] for each in what))

    labelling = first("/tables/")
    duplicates = first("/excluded/")
    again = first("os.rename", "/results/", start=duplicates)
    publishing = first("/publishing.lock", start=again)
    edges = {"reading": 0, "labelling": labelling, "duplicates": duplicates, "validation": again + 1}
    edges |= {"publishing": publishing, "end": len(operations)}
    chance = random.Random(SEED)
    return [
        (phase, moment)
        for (phase, start), (_, end) in pairwise(edges.items())
        for moment in sorted(chance.sample(range(start, end), MOMENTS // (len(edges) - 1)))
    ]


@pytest.mark.slow
def test_wherever_it_is_killed_the_next_run_gives_what_an_unbroken_one_gives(
    tmp_path: Path, job: Job, forked: Any
) -> None:
    former, unbroken = tables(job.former), tables(job.unbroken)

    def kill_and_start_again(moment: tuple[str, int]) -> list[str]:
        """What was wrong."""
        phase, kill_at = moment
        output = tmp_path / f"{phase}-{kill_at}"
        shutil.copytree(job.former, output)
        code, _ = forked(*job.command(output), watched=str(output), kill_at=kill_at)
        wrong = [] if code == -signal.SIGKILL else [f"it was not killed, it ended with {code}"]
        found = tables(output)
        wrong += [
            f"a reader finds a part of {each}" for each in TABLES if found[each] not in (former[each], unbroken[each])
        ]
        finished = {path.stem for path in output.glob("_staging/*/*/results/*.json")}
        journals = list(output.glob("_staging/*/publishing.json"))
        events = tmp_path / f"{output.name}.events"
        code, said = forked(*job.command(output), watched=str(output), events=str(events))
        if code != 0:
            wrong.append(f"the next run ended with {code}: {said}")
        if tables(output) != unbroken:
            wrong.append("the next run gives other tables")
        if journals:
            expected = "was interrupted while it published"
        elif found == unbroken:
            expected = "nothing was changed"
        else:
            expected = "going on after the" if finished else "dialogues"
        if expected not in said:
            wrong.append(f"the next run does not say {expected!r}: {said}")
        written = {line.rpartition("/")[2] for line in events.read_text().splitlines() if "os.rename" in line}
        # The last one has the dialogue that was there before.
        twice = {f"{each}.json" for each in sorted(finished)[:-1]} & written
        if twice and phase != "duplicates":
            wrong.append(f"labelled twice: {twice}")
        if [each for each in (output / "_staging").iterdir() if each.is_dir()]:
            wrong.append("something is left in _staging")
        return [f"{phase} {kill_at} ({job.operations[kill_at]}): {each}" for each in wrong]

    chosen = moments(job.operations)
    assert len(chosen) == MOMENTS
    with ThreadPoolExecutor(2) as pool:
        assert [each for some in pool.map(kill_and_start_again, chosen) for each in some] == []


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_tells_mlflow_is_sent_later(
    tmp_path: Path, tiny_model_dir: Path, forked: Any
) -> None:
    log, output = tmp_path / "log.jsonl", tmp_path / "out"
    write_log(log, ["a", "b"], "play some jazz")
    command = ["label", "--input", log, "--output", output, "--model", tiny_model_dir, "--no-progress"]
    code, said = forked(*command, watched=str(output), kill_before="/mlartifacts/")
    assert code == -signal.SIGKILL, said
    code, said = forked(*command)
    assert (code, "nothing was changed" in said) == (0, True)
    assert f"MLflow lacks 1 of the runs in {output}; send with: faultline track {output}" in said
    code, said = forked("track", output)
    assert code == 0, said
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("faultline-label").experiment_id])
    assert (run.info.status, run.data.metrics["dialogues"]) == ("FINISHED", 2)
    assert [each.path for each in client.list_artifacts(run.info.run_id) if each.path == "run.json"]
    assert not list((output / "untracked").iterdir())


@pytest.mark.slow
def test_a_run_with_two_worker_processes_goes_on_after_a_kill_and_gives_the_same_files(
    tmp_path: Path, job: Job, forked: Any
) -> None:
    output = tmp_path / "out"
    command = [*job.command(output), "--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    killed = forked.start(*command)
    killed.until_found(output, "_staging/*/*/results/*.json")
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.ended()[0] == -signal.SIGKILL
    code, said = forked.start(*command).ended(seconds=300)
    assert code == 0, said
    assert "going on after the" in said
    assert tables(output) == tables(job.unbroken)
