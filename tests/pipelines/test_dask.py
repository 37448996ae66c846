"""The Beam runner for Dask, on clusters of this machine. What it gives beside other engines is in test_engines.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import duckdb
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from distributed import Client, LocalCluster

from pipelines import dask_runner
from pipelines.cli import main
from pipelines.dask_runner import DaskRunner
from pipelines.errors import UserError
from pipelines.options import OptionParser
from schemas.labels import TABLES

NETWORK = "10.213.77"
"""The first three numbers of the addresses of a network that is made for a test."""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A scheduler with one worker, both in this process."""
    with LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        yield cluster


def on(cluster: LocalCluster, chain: Callable[[beam.Pipeline], object]) -> str:
    pipeline = beam.Pipeline(DaskRunner(), PipelineOptions([], dask_scheduler=cluster.scheduler_address))
    chain(pipeline)
    state: str = pipeline.run().wait_until_finish()
    return state


def keyed(text: str) -> Iterator[tuple[str, str]]:
    for letter in text:
        yield letter, text


def test_a_chain_with_a_group_gives_each_group_whole(cluster: LocalCluster, tmp_path: Path) -> None:
    def note(group: tuple[str, Iterable[str]]) -> None:
        (tmp_path / group[0]).write_text(" ".join(sorted(group[1])))

    state = on(
        cluster,
        lambda pipeline: (
            pipeline
            | beam.Create(["ab", "bc", ""])
            | beam.FlatMap(keyed)
            | beam.Reshuffle()
            | beam.GroupByKey()
            | beam.Map(note)
        ),
    )
    assert state == "DONE"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "ab", "b": "ab bc", "c": "bc"}


def test_a_task_that_fails_for_a_moment_is_done_again(cluster: LocalCluster, tmp_path: Path) -> None:
    def fail_twice(element: int) -> None:
        tries = len(list(tmp_path.iterdir()))
        (tmp_path / str(tries)).touch()
        if tries < 2:
            raise OSError("the store is busy")

    assert on(cluster, lambda pipeline: pipeline | beam.Create([1]) | beam.Map(fail_twice)) == "DONE"
    assert len(list(tmp_path.iterdir())) == 3


def test_what_a_task_raises_every_time_ends_the_run(cluster: LocalCluster) -> None:
    with pytest.raises(ZeroDivisionError):
        on(cluster, lambda pipeline: pipeline | beam.Create([0, 1]) | beam.Map(lambda element: 1 // element))


class WithSetup(beam.DoFn):  # type: ignore[misc]
    def setup(self) -> None:
        """Would not be called."""

    def process(self, element: int) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    "chain",
    [
        lambda one: one | "Bad" >> beam.ParDo(WithSetup()),
        lambda one: one | "Bad" >> beam.Map(lambda element, other: None, 1),
        lambda one: one | "Bad" >> beam.Map(lambda element, other: None, beam.pvalue.AsList(one)),
        lambda one: (one | "Good" >> beam.Map(str), one | "Bad" >> beam.Map(str)),
        lambda one: one.pipeline | "Bad" >> beam.Create([2]),
        lambda one: (one, one) | "Bad" >> beam.Flatten(),
    ],
    ids=["set-up", "argument", "side input", "branch", "second source", "flatten"],
)
def test_a_graph_of_another_kind_is_refused_and_not_run_wrongly(chain: Callable[[beam.PCollection], object]) -> None:
    pipeline = beam.Pipeline(DaskRunner())
    chain(pipeline | "One" >> beam.Create([1]))
    with pytest.raises(NotImplementedError, match=r"the step Bad.* is not of the kind that --runner dask can run"):
        pipeline.run()


def test_a_scheduler_without_workers_is_said(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_runner, "_PATIENCE", 1.0)
    cluster.scale(0)
    with pytest.raises(ConnectionError, match="has no workers: start some"):
        on(cluster, lambda pipeline: pipeline | beam.Create([1]) | beam.Map(str))


def test_the_loss_of_the_last_worker_ends_the_run(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_runner, "_PATIENCE", 1.0)
    begun, over = tmp_path / "begun", tmp_path / "over"

    def wait(element: int) -> None:
        begun.touch()
        while not over.exists():
            time.sleep(0.01)

    def lose() -> None:
        while not begun.exists():
            time.sleep(0.01)
        cluster.scale(0)

    losing = threading.Thread(target=lose)
    losing.start()
    try:
        with pytest.raises(ConnectionError, match="no Dask worker is left"):
            on(cluster, lambda pipeline: pipeline | beam.Create([1]) | beam.Map(wait))
    finally:
        over.touch()
        losing.join()


def test_a_scheduler_without_dask_is_a_mistake() -> None:
    with pytest.raises(UserError, match="--dask-scheduler goes with --runner dask"):
        OptionParser("faultline", "").parse_with_beam(["--dask-scheduler", "tcp://127.0.0.1:8786"])


@pytest.mark.slow
def test_workers_on_this_machine_label_single_turns_and_let_nobody_else_in(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [
        {"session_id": f"s{index % 10}", "started_at": f"2026-03-01T10:0{index // 10}:00Z", "text": "play jazz"}
        for index in range(20)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    tracking = ["--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--model", str(tiny_model_dir)]
    logs = ["--input", str(tmp_path / "log.jsonl"), "--input-format", "turns", "--chunk-bytes", "500"]
    refused = []

    def reaching(*arguments: object, **more: object) -> LocalCluster:
        cluster = LocalCluster(*arguments, **more)
        try:
            Client(cluster.scheduler_address, timeout=1).close()
        except (OSError, TypeError) as error:  # without a key
            refused.append(error)
        return cluster

    monkeypatch.setattr(dask_runner, "LocalCluster", reaching)
    for name, more in (("local", []), ("dask", ["--runner", "dask"])):
        output = ["--output", str(tmp_path / name), "--no-progress"]
        assert main(["label", *logs, *tracking, *output, *more]) == 0
    assert len(refused) == 1
    assert_same_rows(tmp_path / "dask", tmp_path / "local", dialogues=10)


def assert_same_rows(one: Path, other: Path, dialogues: int) -> None:
    for table in TABLES:
        rows = [
            duckdb.sql(f"SELECT * FROM '{output}/{table}/**/*.parquet' ORDER BY ALL").fetchall()
            for output in (one, other)
        ]
        assert rows[0] == rows[1]
    assert len(duckdb.sql(f"SELECT * FROM '{one}/dialogues/**/*.parquet'")) == dialogues


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces on a bridge of this machine, which is the first address of `NETWORK`."""
    made: list[list[str]] = []
    try:
        ip("link", "add", "faultline", "type", "bridge")
        made.append(["link", "delete", "faultline"])
        ip("addr", "add", f"{NETWORK}.1/24", "dev", "faultline")
        ip("link", "set", "faultline", "up")
        names = [f"faultline-{number}" for number in (2, 3)]
        for number, name in enumerate(names, start=2):
            ip("netns", "add", name)
            made.append(["netns", "delete", name])
            ip("link", "add", f"fl{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"fl{number}", "master", "faultline", "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        for each in reversed(made):
            ip(*each)
        pytest.skip(f"network namespaces cannot be made here: {error}")
    yield names
    for each in reversed(made):
        ip(*each)


@pytest.mark.slow
def test_workers_on_networks_of_their_own_label_the_same_rows(
    tmp_path: Path, tiny_model_dir: Path, namespaces: list[str]
) -> None:
    log = [{"dialogue_id": f"d{index}", "turns": [{"text": "play jazz"}]} for index in range(40)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(dialogue) + "\n" for dialogue in log))
    dask = str(Path(sys.executable).parent / "dask")
    scheduler = f"tcp://{NETWORK}.1:8786"
    worker = ["worker", scheduler, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    commands = [
        [dask, "scheduler", "--host", scheduler, "--no-dashboard"],
        *(["ip", "netns", "exec", name, dask, *worker] for name in namespaces),
    ]
    options = ["--input", str(tmp_path / "log.jsonl"), "--model", str(tiny_model_dir), "--chunk-bytes", "500"]
    options += ["--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--no-progress"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for command in commands]
    try:
        with Client(scheduler, timeout=60) as client:
            client.wait_for_workers(2, 60)
            hosts = {each["host"] for each in client.scheduler_info()["workers"].values()}
        assert hosts == {f"{NETWORK}.2", f"{NETWORK}.3"}
        on_dask = ["--runner", "dask", "--dask-scheduler", scheduler]
        assert main(["label", *options, "--output", str(tmp_path / "dask"), *on_dask]) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert main(["label", *options, "--output", str(tmp_path / "local")]) == 0
    assert_same_rows(tmp_path / "dask", tmp_path / "local", dialogues=40)
