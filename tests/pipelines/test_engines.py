"""The same log on every engine that there is here: the same files, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.labels import TABLES

DIALOGUES = 10_000
BIN = Path(sys.executable).parent

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process of the engine, which is killed at the end with all that it has started."""
    started = []

    def start(*command: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
        with (tmp_path / f"engine-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*map(str, command)], env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port: int = some.getsockname()[1]
        return port


def files(output: Path) -> dict[str, str]:
    """The parts of all tables, with their digests."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for table in TABLES
        for path in output.glob(f"{table}/**/*.parquet")
    }


@pytest.mark.slow
def test_all_engines_give_the_same_files(tmp_path: Path, tiny_model_dir: Path, forked: Any, start: Start) -> None:
    says = ["play some jazz", "no, i said jazz", "stop", "what is the weather"]
    chance = random.Random(7)
    with (tmp_path / "log.jsonl").open("w") as log:
        for index in range(DIALOGUES):
            turns = [{"text": text} for text in chance.choices(says, k=chance.randint(1, 2))]
            log.write(json.dumps({"dialogue_id": f"d{index}", "turns": turns}) + "\n")
    tracking = ["--mlflow-tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--no-progress"]
    command = ["label", "--input", tmp_path / "log.jsonl", "--model", tiny_model_dir, *tracking]
    command += ["--chunk-bytes", "30000"]

    def label(name: str, *engine: object) -> dict[str, str]:
        code, said = forked(*command, "--output", tmp_path / name, *engine)
        assert code == 0, said
        return files(tmp_path / name)

    one_process = label("one")
    chunks = sum(path.startswith("dialogues/") for path in one_process)
    assert chunks > 20
    assert label("two", "--direct_num_workers", "2", "--direct_running_mode", "multi_processing") == one_process

    scheduler = f"tcp://127.0.0.1:{free_port()}"
    start(BIN / "dask", "scheduler", "--host", scheduler, "--no-dashboard")
    worker = [BIN / "dask", "worker", scheduler, "--nthreads", "1", "--memory-limit", "0", "--no-nanny"]
    workers = [start(*worker, "--no-dashboard") for _ in range(2)]
    on_dask = forked.start(*command, "--output", tmp_path / "dask", "--runner", "dask", "--dask-scheduler", scheduler)
    while len(list((tmp_path / "dask").glob("_staging/*/*/results/*.json"))) < chunks // 2:
        assert forked.poll(on_dask.pid) is None, on_dask.log.read_text()
        time.sleep(0.01)
    workers[0].kill()
    code, said = on_dask.ended()
    assert code == 0, said
    assert files(tmp_path / "dask") == one_process

    jobs, pool = free_port(), free_port()
    start(sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--job_port", jobs)
    start(sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", pool)
    portable = ["--runner", "PortableRunner", "--job_endpoint", f"127.0.0.1:{jobs}"]
    external = ["--environment_type", "EXTERNAL", "--environment_config", f"127.0.0.1:{pool}"]
    assert label("portable", *portable, *external) == one_process
