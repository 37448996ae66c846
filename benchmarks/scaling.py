"""How `faultline label` grows: measured with one and two workers on this machine, and simulated from there.

    python benchmarks/scaling.py --measure LOG.jsonl [--output DIR]   measures, writes scaling.json, then simulates
    python benchmarks/scaling.py [--output DIR]                         simulates from DIR/scaling.json

LOG is a plain log in the canonical form, of ten MB or more. A worker is a process of one thread. What is measured:
how long a worker takes to start, how fast one reader cuts a plain and a gzip file, how long each chunk takes, how many
turns a second one and two workers label, how long the launcher then takes to validate and to publish, and, from some
copies of these labels, how long it takes to validate every further turn. One worker is held to one core and two to
two, with all that the run has besides, and they take turns: a machine's speed differs by some percent from hour to
hour.

The simulation is of one run. Workers start; they cut the files, a file being one task; once all are cut they label the
chunks, each taking the next one when it is free; then the launcher works alone, unless so much is to be validated that
workers do it, in a job of its own for which they start again. A chunk's time is drawn from a
lognormal distribution with the mean and the variance that were measured. What was not measured is in `Assumed`.
Writes scaling.md and scaling.png.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import heapq
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# A worker is a process of one thread, here as in the runs.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib import pyplot as plt
from rich.console import Console

from pipelines import settings
from pipelines.chunks import Chunk, ChunkSize, SourceFile, Spool, cut
from pipelines.cli import guarded
from pipelines.label import SHARE_ROWS, SHARES_ALONE
from pipelines.labelling import label_chunk, load_model
from pipelines.plan import Plan, find_sources, make_plan
from pipelines.results import ChunkResult, parts_by_table
from pipelines.staging import Staging
from pipelines.validation import validate_parts

WORKERS = (10, 100, 1_000, 5_000)
TURNS = (10**6, 10**8, 10**9, 10**10)
MANY, FEW = 10**9, 10**7
FILES = (1, 10, 100, 1_000, 10_000)
CHUNK_FACTORS = (0.25, 1.0, 4.0, 16.0)
SEED = 7
VALIDATED_TURNS = 1_000_000
"""Turns of the copies that are validated, at least."""
MEASURED_BYTES = 1 << 20
"""Of a chunk while it is measured, so that a small log has some; the simulation has chunks of the usual size."""
MEASURED_CHUNKS = 20
"""Chunks that are measured one by one, at most."""
ROUNDS = 3
"""Whole runs of one worker and of two, in turn."""


@dataclass(frozen=True)
class Measured:
    """Of one worker, and of the launcher."""

    turns_per_chunk: float
    bytes_per_turn: float
    """Uncompressed."""
    chunk_seconds: float
    chunk_variation: float
    """Standard deviation of a chunk's seconds over their mean."""
    start_seconds: float
    """From the start of the process until the model is loaded."""
    plain_bytes_per_second: float
    gzip_bytes_per_second: float
    """Uncompressed bytes that one reader cuts, with writing them for others."""
    turns_per_second: dict[str, list[float]]
    """By number of workers and round, of whole runs without validation and publication."""
    finish_seconds: float
    """Of the launcher, after the last chunk, in a run of `finish_turns`."""
    finish_turns: int
    validate_seconds_per_turn: float
    """Of whoever validates."""


@dataclass(frozen=True)
class Assumed:
    """What the simulation takes for granted."""

    provision_seconds: float = 120.0
    """Until a machine of a cloud is there, with its image."""
    provision_variation: float = 0.3
    slow_workers: float = 0.01
    """Share of workers that take `slowness` times as long for everything."""
    slowness: float = 3.0


@dataclass(frozen=True)
class Job:
    """One run."""

    turns: int
    workers: int
    files: int
    compressed: bool = True
    chunk_factor: float = 1.0
    """Size of a chunk beside the measured one."""


@dataclass(frozen=True)
class Times:
    """Seconds of a simulated run, by phase."""

    start: float
    cut: float
    label: float
    validate: float
    """By the workers; 0 where the launcher does that, too."""
    finish: float
    """Of the launcher alone."""

    @property
    def wall(self) -> float:
        return self.start + self.cut + self.label + self.validate + self.finish


def measure(log: Path, folder: Path) -> Measured:
    plan = _plan(log, folder / "chunks")
    [source] = plan.sources
    zipped = folder / "log.jsonl.gz"
    with gzip.open(zipped, "wb", 6) as stream:
        stream.write(log.read_bytes())
    started = time.perf_counter()
    code = "import apache_beam; from pipelines.labelling import load_model; load_model('builtin', '')"
    subprocess.run([sys.executable, "-c", code], check=True)
    start_seconds = time.perf_counter() - started
    plain_seconds, chunks = _cut(source, plan)
    gzip_seconds, _ = _cut(replace(source, path=str(zipped)), plan)
    # The last one is not full.
    chunks = chunks[:-1][:MEASURED_CHUNKS]
    if len(chunks) < 5:
        raise SystemExit(f"{log} has {source.size:,} bytes: measure with a larger log.")
    load_model("builtin", "")
    for chunk in chunks:
        label_chunk(chunk, plan.work)
    results = list(plan.work.staging.results([chunk.id for chunk in chunks]))
    seconds = [sum(result.counts.seconds.values()) for result in results]
    times = ChunkSize().bytes / MEASURED_BYTES
    validate_seconds_per_turn = _validation(plan.work.staging, results, folder / "copies")
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for number in range(ROUNDS):
        # One worker first, then two; in the next round two first.
        for workers in sorted(runs, reverse=number % 2 == 1):
            runs[workers].append(_whole_run(log, folder / f"run-{number}-{workers}", workers))
    turns = int(runs[1][0]["turns"])
    return Measured(
        turns_per_chunk=statistics.mean(result.counts.turns for result in results) * times,
        bytes_per_turn=source.size / turns,
        chunk_seconds=statistics.mean(seconds) * times,
        # Its parts vary on their own.
        chunk_variation=statistics.stdev(seconds) / statistics.mean(seconds) / math.sqrt(times),
        start_seconds=start_seconds,
        plain_bytes_per_second=source.size / plain_seconds,
        gzip_bytes_per_second=source.size / gzip_seconds,
        turns_per_second={str(workers): [run["turns_per_second"] for run in each] for workers, each in runs.items()},
        # The run's own clock ends with the last chunk; before it begins, the launcher starts as a worker does.
        finish_seconds=statistics.median(run["elapsed"] - run["wall_seconds"] for run in runs[1]) - start_seconds,
        finish_turns=turns,
        validate_seconds_per_turn=validate_seconds_per_turn,
    )


def _validation(staging: Staging, results: Sequence[ChunkResult], folder: Path) -> float:
    """Seconds that a turn more takes: of many copies of these labels, beside one."""
    turns = sum(result.counts.turns for result in results)
    copies = max(2, math.ceil(VALIDATED_TURNS / turns))
    parts = {name: [staging.part(part) for part in of] for name, of in parts_by_table(results).items()}
    copied: dict[str, list[str]] = {name: [] for name in parts}
    for name, paths in parts.items():
        for number, path in enumerate(paths):
            table = pq.read_table(path, partitioning=None)
            for copy in range(copies):
                renamed = table
                for column, field in enumerate(table.schema):
                    if field.name in ("dialogue_id", "goal_id"):
                        # Other dialogues and goals, as none may be there twice.
                        ids = pc.binary_join_element_wise(table[field.name], str(copy), "-")
                        renamed = renamed.set_column(column, field, ids)
                target = folder / name / f"{copy}-{number}.parquet"
                target.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(renamed, target)
                copied[name].append(str(target))
    validate_parts(parts)  # what is imported and set up at the first time is not measured
    seconds = []
    for each in (parts, copied):
        started = time.perf_counter()
        report = validate_parts(each)
        seconds.append(time.perf_counter() - started)
        if not report.success:
            raise SystemExit(report.describe_failure())
    return (seconds[1] - seconds[0]) / (turns * (copies - 1))


def _plan(log: Path, output: Path) -> Plan:
    asked, _ = settings.parse(["--input", str(log), "--output", str(output), "--chunk-bytes", str(MEASURED_BYTES)])
    return make_plan(asked, find_sources(asked.inputs), "", load_model("builtin", "").version, None)


def _cut(source: SourceFile, plan: Plan) -> tuple[float, list[Chunk]]:
    spool: Spool = plan.work.staging.spool()
    started = time.perf_counter()
    chunks = list(cut(source, spool, plan.work.chunk_size))
    return time.perf_counter() - started, chunks


def _whole_run(log: Path, output: Path, workers: int) -> dict[str, float]:
    engine = ["--direct_num_workers", str(workers), "--direct_running_mode", "multi_processing", "--no-progress"]
    command = [sys.executable, "-m", "pipelines.label", "--input", str(log), "--output", str(output), *engine]
    command += ["--chunk-bytes", str(MEASURED_BYTES)]
    cores = sorted(os.sched_getaffinity(0))[:workers]
    if len(cores) < workers:
        raise SystemExit(f"{workers} workers need as many cores, and here is {len(cores)}: measure on another machine.")
    started = time.perf_counter()
    # The launcher and every process that it starts; also the threads of libraries that nobody asked for.
    hold = functools.partial(os.sched_setaffinity, 0, cores)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=hold)
    elapsed = time.perf_counter() - started
    summary: dict[str, float] = json.loads((output / "run.json").read_text())["summary"]
    return {**summary, "elapsed": elapsed}


def simulate(job: Job, measured: Measured, assumed: Assumed) -> Times:
    """The seconds of one run."""
    chance = np.random.default_rng(SEED)
    ready = _started(job, measured, assumed, chance)
    speed = np.where(chance.random(job.workers) < assumed.slow_workers, 1 / assumed.slowness, 1.0)
    rate = measured.gzip_bytes_per_second if job.compressed else measured.plain_bytes_per_second
    file_seconds = job.turns / job.files * measured.bytes_per_turn / rate
    cut_ends = _hand_out([file_seconds] * job.files, ready, speed)
    # A chunk's parts vary on their own, so one of four times the size varies half as much.
    chunks = math.ceil(job.turns / (measured.turns_per_chunk * job.chunk_factor))
    variation = measured.chunk_variation / math.sqrt(job.chunk_factor)
    seconds = _lognormal(chance, measured.chunk_seconds * job.chunk_factor, variation, chunks)
    all_cut = float(cut_ends.max())
    label_ends = _hand_out(seconds.tolist(), np.maximum(ready, all_cut), speed)
    first = float(ready.min())
    shares = math.ceil(job.turns / SHARE_ROWS)
    validate, finish = 0.0, measured.finish_seconds
    if shares > SHARES_ALONE:
        again = _started(job, measured, assumed, chance)
        share_seconds = SHARE_ROWS * measured.validate_seconds_per_turn
        validate = float(_hand_out([share_seconds] * shares, again, speed).max())
    else:
        finish += measured.validate_seconds_per_turn * (job.turns - measured.finish_turns)
    return Times(
        start=first,
        cut=all_cut - first,
        label=float(label_ends.max()) - all_cut,
        validate=validate,
        finish=finish,
    )


def _started(job: Job, measured: Measured, assumed: Assumed, chance: np.random.Generator) -> np.ndarray:
    """When each worker is there."""
    machines = _lognormal(chance, assumed.provision_seconds, assumed.provision_variation, job.workers)
    return measured.start_seconds + machines


def _lognormal(chance: np.random.Generator, mean: float, variation: float, size: int) -> np.ndarray:
    variance = math.log(1 + variation**2)
    return chance.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), size)


def _hand_out(tasks: Iterable[float], ready: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """When each worker ends, if whoever is free first takes the next task; one without a task: never busy."""
    free = [(at, worker) for worker, at in enumerate(ready.tolist())]
    heapq.heapify(free)
    speeds = speed.tolist()
    ends = np.zeros(len(free))
    for task in tasks:
        at, worker = free[0]
        end = at + task / speeds[worker]
        ends[worker] = end
        heapq.heapreplace(free, (end, worker))
    return ends


def report(measured: Measured, assumed: Assumed, folder: Path) -> None:
    """Writes scaling.md and scaling.png."""
    one, two = measured.turns_per_second["1"], measured.turns_per_second["2"]
    ratios = [many / single for single, many in zip(one, two, strict=True)]
    lines = [
        "| workers | turns a second, by round | beside one, by round | median |",
        "|---|---|---|---|",
        f"| 1 | {', '.join(f'{each:,.0f}' for each in one)} | | |",
        f"| 2 | {', '.join(f'{each:,.0f}' for each in two)} | {', '.join(f'{each:.2f}' for each in ratios)} "
        f"| {statistics.median(ratios):.2f} |",
        "",
        f"A chunk of {measured.turns_per_chunk:,.0f} turns takes {measured.chunk_seconds:.1f} s, with a deviation of "
        f"{measured.chunk_variation:.0%}; a worker starts in {measured.start_seconds:.0f} s; one reader cuts "
        f"{measured.plain_bytes_per_second / 1e6:,.0f} MB/s of a plain file and "
        f"{measured.gzip_bytes_per_second / 1e6:,.0f} MB/s of what a gzip file expands to; after "
        f"the last chunk of {measured.finish_turns:,} turns the launcher "
        f"takes {measured.finish_seconds:.0f} s; to validate a turn more takes "
        f"{measured.validate_seconds_per_turn * 1e6:.0f} microseconds, of the launcher's time in runs of up to "
        f"{SHARES_ALONE * SHARE_ROWS:,} turns, else of the workers'.",
    ]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")

    lines += _heading("turns, workers")
    for turns in TURNS:
        runs = [(workers, simulate(Job(turns, workers, _files(turns)), measured, assumed)) for workers in WORKERS]
        lines += [_row(f"{turns:,}, {workers:,}", workers, turns, times, measured) for workers, times in runs]
        hours = [(each.start + each.cut + each.label) / 3600 for _, each in runs]
        (line,) = left.loglog(WORKERS, hours, "o-", label=f"{turns:,} turns")
        left.loglog(WORKERS, [each.wall / 3600 for _, each in runs], "--", color=line.get_color())
    left.set(xlabel="workers", ylabel="hours", title="Until the last chunk is labelled; dashed: until it is published")
    left.legend()

    lines += _heading(f"gzip files of {MANY:,} turns, 1,000 workers")
    cuts, labels = [], []
    for files in FILES:
        times = simulate(Job(MANY, 1_000, files), measured, assumed)
        lines.append(_row(f"{files:,}", 1_000, MANY, times, measured))
        cuts.append((times.start + times.cut) / 3600)
        labels.append(times.label / 3600)
    names = [f"{files:,}" for files in FILES]
    middle.bar(names, cuts, label="start and cut")
    middle.bar(names, labels, bottom=cuts, label="label")
    middle.set(xlabel="gzip files", ylabel="hours", title=f"{MANY:,} turns, 1,000 workers")
    middle.legend()

    lines += _heading(f"size of a chunk beside the usual one, {FEW:,} turns, 1,000 workers")
    tails = []
    for factor in CHUNK_FACTORS:
        times = simulate(Job(FEW, 1_000, 1_000, chunk_factor=factor), measured, assumed)
        lines.append(_row(f"{factor:g}", 1_000, FEW, times, measured))
        tails.append(times.label / (FEW / measured.turns_per_chunk * measured.chunk_seconds / 1_000))
    right.semilogx(CHUNK_FACTORS, tails, "o-")
    right.set(xlabel="size of a chunk beside the usual one", ylabel="time to label, beside perfect division")
    right.set_title(f"{FEW:,} turns, 1,000 workers, of which {assumed.slow_workers:.0%} are slow")
    figure.savefig(folder / "scaling.png", dpi=80)
    (folder / "scaling.md").write_text("\n".join(lines) + "\n")


def _files(turns: int) -> int:
    """Gzip files of half a million turns."""
    return max(1, turns // 500_000)


def _heading(what: str) -> list[str]:
    return [
        "",
        f"| {what} | start | cut | label | validate | launcher | wall | worker-hours | of these at work |",
        "|---" * 9 + "|",
    ]


def _row(what: str, workers: int, turns: int, times: Times, measured: Measured) -> str:
    validation = turns * measured.validate_seconds_per_turn if times.validate else 0.0
    busy = (turns / measured.turns_per_chunk * measured.chunk_seconds + validation) / 3600
    held = workers * (times.wall - times.finish) / 3600
    phases = (times.start, times.cut, times.label, times.validate, times.finish, times.wall)
    cells = [_time(each) if each else "" for each in phases]
    return f"| {what} | {' | '.join(cells)} | {held:,.1f} | {busy / held:.0%} |"


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How faultline label grows: measured, and simulated from there.")
    parser.add_argument("--measure", type=Path, metavar="LOG", help="plain log to measure with, of 10 MB or more")
    parser.add_argument("--output", type=Path, default=Path("scaling"), metavar="DIR", help="default: %(default)s")
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "scaling.json"
    if options.measure is not None:
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(options.measure.absolute(), Path(folder))
        kept.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    elif kept.is_file():
        measured = Measured(**json.loads(kept.read_text()))
    else:
        parser.error(f"there is no {kept} yet: measure first, with --measure LOG")
    report(measured, Assumed(), options.output)
    Console().print(f"{options.output}/scaling.md and scaling.png", highlight=False)


if __name__ == "__main__":
    sys.exit(guarded(main))
