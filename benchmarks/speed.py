"""How fast Faultline reads dialogues, beside the usual ways, on this machine.

    pip install '.[bench]'
    python benchmarks/speed.py [--quick] [--turns N] [--only encoders|jobs|sizes …] [--output DIR]

- *Encoder*: vectors of texts as they come and of distinct ones, at RoBERTa-base's size with random weights, by
  Faultline, by a `pipeline` of transformers, by Beam's RunInference with its stock handler, by sentence-transformers,
  and the machine's bare matrix products of these shapes. All agree on the vectors, or the command fails.
- *Whole job*: `faultline label` with the builtin model beside a straightforward Beam job with the same model, and
  whether the labels are the same; where the time goes; logs of growing size; two processes beside one.

Each way runs in a process of its own, with the same number of threads, in turns: a round measures all of them once,
and what counts is the median of the rounds' ratios. Figures of different runs do not compare. The logs are dstc2's, and
simulated ones where these are not there. Writes speed.md, speed.png and speed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from labelers.model import GROUP_TURNS
from pipelines.logs import read_logs

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data" / "dstc2" / "train.jsonl.gz"
TURNS_PER_DIALOGUE = 4.4
"""Of simulated logs."""
SIMULATED_TURNS = 12_000
"""Of the log that stands for dstc2's: about as many."""
TOLERANCE = 0.02
"""Largest distance of a vector in bf16 from that in float32, as a share of its length. bf16 keeps eight bits, so
each rounding is off by up to 0.4 %, and there are some in each of twelve layers."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    texts: int | None
    """of those that come; None: all"""
    part: int
    """texts that a usual way encodes in a round, and distinct ones"""
    rounds: int
    dialogues: int | None
    """of the log that `faultline label` labels; None: all"""
    compared: int
    """of these, those that the straightforward job labels, a part in each round"""
    sizes: tuple[int, ...]
    """turns of the simulated logs; each is a multiple of the first"""


FULL = Scale(texts=None, part=600, rounds=3, dialogues=None, compared=800, sizes=(10_000, 100_000))
QUICK = Scale(texts=400, part=100, rounds=1, dialogues=40, compared=20, sizes=(500, 1_500))


class Log(NamedTuple):
    """A file of dialogues, a line each."""

    path: Path
    format: str


class Kind(StrEnum):
    """What a criterion's figure is."""

    RATIO = "times"
    SHARE = "%"
    COUNT = ""

    def show(self, value: float) -> str:
        if self is Kind.SHARE:
            return f"{100 * value:.4g} %"
        return f"{value:.1f} times" if self is Kind.RATIO else f"{value:g}"


@dataclass(frozen=True)
class Criterion:
    """What is asked of Faultline, and what came of it in each round."""

    what: str
    needed: float
    rounds: list[float]
    kind: Kind = Kind.RATIO
    at_most: bool = False

    @property
    def measured(self) -> float:
        return statistics.median(self.rounds)

    @property
    def met(self) -> bool:
        return self.measured <= self.needed if self.at_most else self.measured >= self.needed


class Part(StrEnum):
    """What can be measured without the rest."""

    ENCODERS = "encoders"
    JOBS = "jobs"
    SIZES = "sizes"


class Size(NamedTuple):
    """A run of `faultline label` on a log of some size."""

    turns: int
    seconds: float
    """of the run, without loading the model"""
    work: float
    """seconds of work a turn, added up over the processes; start and publication are not in it"""
    peak: int
    """bytes of memory of all processes together, at their most"""
    processes: int
    threads: int


class Texts(NamedTuple):
    """How much alike the texts are."""

    number: int
    distinct: float
    """share of distinct ones among all"""
    distinct_of_group: float
    """the same, each group of `GROUP_TURNS` texts for itself"""


@dataclass
class Results:
    """Everything that a run measured."""

    machine: dict[str, str]
    texts: Texts | None = None
    encoders: dict[str, list[float]] = field(default_factory=dict)
    """texts a second of each, as they come, by round"""
    distinct: list[float] = field(default_factory=list)
    """distinct texts a second of Faultline's, by round"""
    matrix: list[float] = field(default_factory=list)
    """operations a second of the bare matrix product, by round"""
    off: dict[str, float] = field(default_factory=dict)
    """largest distance of a vector from that of transformers, as a share of its length"""
    jobs: dict[str, list[float]] = field(default_factory=dict)
    """turns a second of each, by round"""
    stages: list[dict[str, float]] = field(default_factory=list)
    """share of each stage in the time of `faultline label`, by round"""
    agreement: dict[str, Any] = field(default_factory=dict)
    sizes: list[Size] = field(default_factory=list)
    workers: list[Size] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    criteria: list[Criterion] = field(default_factory=list)


Say = Callable[[str], None]


class Failed(SystemExit):
    """What is measured did not work."""


# Processes


def _environment(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


class Encoder:
    """A process of `benchmarks.speed_encoders`, which encodes a list of texts each time it is asked.

    It loads its model while others do; `wait` until all are ready before one is asked.
    """

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name = name
        self._errors = folder / f"{name}.log"
        command = [sys.executable, "-m", "benchmarks.speed_encoders", name, str(folder)]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(threads),
                text=True,
                bufsize=1,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def wait(self) -> None:
        self._answer()

    def ask(self, texts: str) -> dict[str, float]:
        assert self._process.stdin
        self._process.stdin.write(f"{texts}\n")
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} did not work: {_last_line(self._errors.read_text(errors='replace'))}")
        return json.loads(line)  # type: ignore[no-any-return]


class Job(NamedTuple):
    """What a process of `benchmarks.speed_jobs` found, and the most memory that it and its children had."""

    found: dict[str, Any]
    peak_bytes: int


def run_job(work: Path, threads: int, job: str, *arguments: object) -> Job:
    """Runs a job to its end."""
    result, log = work / "result.json", work / "job.log"
    command = [sys.executable, "-m", "benchmarks.speed_jobs", job, str(result), *map(str, arguments)]
    peak = 0
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=_environment(threads), stdout=output, stderr=output)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peak = max(peak, sum(each.memory_info().rss for each in family))
            time.sleep(0.1)
    if process.returncode:
        raise Failed(f"{job} did not work: {_last_line(log.read_text(errors='replace'))}")
    return Job(json.loads(result.read_text()), peak)


def run_module(name: str, *arguments: object) -> None:
    """Runs `python -m name` quietly."""
    done = subprocess.run(
        [sys.executable, "-m", name, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"{name} did not work: {_last_line(done.stderr)}")


def simulated(folder: Path, turns: int, shards: int) -> list[Log]:
    """Simulated logs of about so many turns, in so many files."""
    dialogues = round(turns / TURNS_PER_DIALOGUE)
    run_module(
        "pipelines.simulate", "--dialogues", dialogues, "--shards", shards, "--output", folder / "log-*.jsonl.gz"
    )
    return [Log(path, "jsonl") for path in sorted(folder.glob("log-*.jsonl.gz"))]


def lines(log: Log) -> list[bytes]:
    """The dialogues of a log, as they stand there."""
    with gzip.open(log.path) as file:
        return file.read().splitlines(keepends=True)


# Encoders

AS_THEY_COME, DISTINCT = "texts", "distinct texts"
FAULTLINE, MATRIX = "faultline", "matrix product"
OTHERS = {"transformers": 12.0, "beam": 10.0, "sentence-transformers": 3.0}
"""The usual ways, and how many times faster Faultline is to be."""


def texts_of(log: Log) -> list[str]:
    """What users and assistant say, in its order."""
    said = []
    for dialogue in read_logs([str(log.path)], log.format).dialogues:
        said.append(dialogue.opening)
        for turn in dialogue.turns:
            said += [turn.text, turn.response.text if turn.response else None]
    return [text for text in said if text]


def repeats(texts: Sequence[str]) -> Texts:
    """How much alike these texts are."""
    groups = [texts[start : start + GROUP_TURNS] for start in range(0, len(texts), GROUP_TURNS)]
    of_groups = sum(len(set(group)) for group in groups)
    return Texts(len(texts), len(set(texts)) / len(texts), of_groups / len(texts))


def compare_encoders(results: Results, log: Log, scale: Scale, work: Path, threads: int, say: Say) -> None:
    """Encodes the same texts in each way.

    The usual ways do not know repeats, so what they make of a part in each round says what they make of all.
    """
    texts = texts_of(log)[: scale.texts]
    results.texts = repeats(texts)
    starts = [number * len(texts) // scale.rounds for number in range(scale.rounds)]
    parts = {str(start): texts[start : start + scale.part] for start in starts}
    distinct = list(dict.fromkeys(texts))[: scale.part]
    lists = {**parts, AS_THEY_COME: texts, DISTINCT: distinct}
    (work / "texts.json").write_text(json.dumps(lists), encoding="utf-8")
    run_module("benchmarks.speed_encoders", "write", work)
    ways = [*OTHERS, FAULTLINE]
    if importlib.util.find_spec("sentence_transformers") is None:
        ways.remove("sentence-transformers")
        results.skipped.append("sentence-transformers: it is not installed (pip install '.[bench]')")
    results.encoders = {name: [] for name in ways}
    shares: list[float] = []
    with contextlib.ExitStack() as stack:
        encoders = {
            name: stack.enter_context(contextlib.closing(Encoder(name, work, threads))) for name in (*ways, MATRIX)
        }
        say("loading the models")
        for each in encoders.values():
            each.wait()
        for number, (part, some) in enumerate(parts.items(), start=1):
            for name in ways:
                say(f"round {number} of {scale.rounds}: {name}")
                asked, count = (AS_THEY_COME, len(texts)) if name == FAULTLINE else (part, len(some))
                results.encoders[name].append(count / encoders[name].ask(asked)["seconds"])
            ours, most = (encoders[name].ask(DISTINCT) for name in (FAULTLINE, MATRIX))
            results.distinct.append(len(distinct) / ours["seconds"])
            results.matrix.append(most["operations"] / most["seconds"])
            shares.append(ours["operations"] / ours["seconds"] / results.matrix[-1])
    _check_vectors(results, work, ways, parts)
    results.criteria += [
        Criterion(f"encoder beside {name}, texts as they come", needed, _ratios(results.encoders, FAULTLINE, name))
        for name, needed in OTHERS.items()
        if name in ways
    ]
    results.criteria.append(
        Criterion("encoder beside the bare matrix product, distinct texts", 0.6, shares, Kind.SHARE)
    )


def _ratios(rates: Mapping[str, Sequence[float]], one: str, other: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(rates[one], rates[other], strict=True)]


def _check_vectors(results: Results, work: Path, ways: Sequence[str], parts: Mapping[str, Sequence[str]]) -> None:
    """Raises `Failed` where somebody's vectors of a part are not those of transformers in float32."""
    ours = np.load(work / f"{FAULTLINE}.{AS_THEY_COME}.npy")
    for part, texts in parts.items():
        right = np.load(work / f"transformers.{part}.npy")
        for name in ways:
            is_ours = name == FAULTLINE
            vectors = ours[int(part) :][: len(texts)] if is_ours else np.load(work / f"{name}.{part}.npy")
            off = float((np.linalg.norm(vectors - right, axis=1) / np.linalg.norm(right, axis=1)).max())
            results.off[name] = max(results.off.get(name, 0.0), off)
            if not off <= TOLERANCE:
                raise Failed(f"The vectors of {name} are {off:.3g} of their length off those of transformers.")


# The whole job

STRAIGHTFORWARD = "straightforward"
WORKER_FILES = 1
"""Of the files of the growing log, those that two processes label beside one."""


def compare_jobs(results: Results, log: Log, scale: Scale, work: Path, threads: int, say: Say) -> None:
    """Labels the same logs by `faultline label`, and by a straightforward job a part in each round."""
    dialogues = lines(log)[: scale.dialogues]
    compared = dialogues[:: max(len(dialogues) // scale.compared, 1)]
    logs, compared_logs = work / "logs.jsonl", work / "compared.jsonl"
    logs.write_bytes(b"".join(dialogues))
    compared_logs.write_bytes(b"".join(compared))
    rates: dict[str, list[float]] = {FAULTLINE: [], STRAIGHTFORWARD: []}
    networks: list[float] = []
    theirs = []
    for number in range(scale.rounds):
        say(f"round {number + 1} of {scale.rounds}: faultline label")
        ours = work / f"labels-{number}"
        job = run_job(work, threads, "label", *label_options([logs], log.format, ours)).found
        rates[FAULTLINE].append(job["turns"] / job["seconds"])
        networks.append(job["networks"] / job["seconds"])
        results.stages.append(stages(job))
        say(f"round {number + 1} of {scale.rounds}: a straightforward Beam job")
        part, output = work / f"part-{number}.jsonl", work / f"straightforward-{number}"
        part.write_bytes(b"".join(compared[number :: scale.rounds]))
        job = run_job(work, threads, "straightforward", part, log.format, logs, output).found
        rates[STRAIGHTFORWARD].append(job["turns"] / job["seconds"])
        theirs.append(output)
    say("comparing the labels")
    results.jobs = rates
    results.agreement = run_job(work, threads, "compare", compared_logs, log.format, logs, ours, *theirs).found
    same, decided = (
        1 - results.agreement[name] / results.agreement["turns"]
        for name in ("different_turns", "differently_decided_turns")
    )
    results.criteria += [
        Criterion("whole job beside a straightforward Beam job", 20.0, _ratios(rates, FAULTLINE, STRAIGHTFORWARD)),
        Criterion("whole job: time that is the model's networks", 0.6, networks, Kind.SHARE),
        Criterion("turns with the same decisions as in float32", 0.999, [decided], Kind.SHARE),
        Criterion("turns with the same decisions and abstentions", 0.999, [same], Kind.SHARE),
        Criterion(
            "differences farther than .02 from a threshold",
            0.0,
            [results.agreement["far_differences"]],
            Kind.COUNT,
            at_most=True,
        ),
    ]


def label_options(logs: Sequence[Path], log_format: str, output: Path) -> list[str]:
    """Of `faultline label`."""
    inputs = [option for path in logs for option in ("--input", str(path))]
    return [*inputs, "--input-format", log_format, "--output", str(output), "--no-progress"]


def stages(job: Mapping[str, Any]) -> dict[str, float]:
    """The share of each stage in a job's time."""
    seconds, networks = job["stages"], job["networks"]
    parts = {
        "read and parse": seconds["read"],
        "label: the model's networks": networks,
        "label: words to tokens, features, decisions, rows": seconds["label"] - networks,
        "write the tables": seconds["write"],
    }
    parts["start, cut the input, validate, publish, track"] = job["seconds"] - sum(parts.values())
    return {name: each / job["seconds"] for name, each in parts.items()}


def grow(results: Results, scale: Scale, work: Path, threads: int, say: Say) -> None:
    """Labels simulated logs of each size, and the first again at the end, since in the hour that the largest can take a
    machine becomes faster or slower; then one file by one process of one thread, and by two."""
    say("simulating logs")
    first = scale.sizes[0]
    files = [log.path for log in simulated(work, scale.sizes[-1], scale.sizes[-1] // first)]
    for turns in (*scale.sizes, first):
        say(f"{turns:,} turns")
        some = files[: turns // first]
        output = work / f"size-{len(results.sizes)}"
        job, peak = run_job(work, threads, "label", *label_options(some, "jsonl", output))
        results.sizes.append(_size(job, peak, 1, threads))
    for processes in (1, 2):
        say(f"{processes} processes of one thread")
        options = label_options(files[:WORKER_FILES], "jsonl", work / f"workers-{processes}")
        if processes > 1:
            options += ["--direct_num_workers", str(processes), "--direct_running_mode", "multi_processing"]
        job, peak = run_job(work, 1, "label", *options)
        results.workers.append(_size(job, peak, processes, 1))
    *_, large, _ = results.sizes
    small = (results.sizes[0], results.sizes[-1])
    growth = f"from {small[0].turns:,} to {large.turns:,} turns"
    time_of_a_turn = [large.work / each.work - 1 for each in small]
    peak_memory = [large.peak / each.peak - 1 for each in small]
    results.criteria += [
        Criterion(f"growth of the time of a turn {growth}", 0.1, time_of_a_turn, Kind.SHARE, at_most=True),
        Criterion(f"growth of the peak memory {growth}", 0.2, peak_memory, Kind.SHARE, at_most=True),
    ]


def _size(job: Mapping[str, Any], peak: int, processes: int, threads: int) -> Size:
    return Size(job["turns"], job["seconds"], sum(job["stages"].values()) / job["turns"], peak, processes, threads)


# What is written


class Section(NamedTuple):
    """A table of the report."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def markdown(self) -> str:
        head = [self.columns, ("---",) * len(self.columns)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in [*head, *self.rows])
        return f"## {self.title}\n\n{table}\n\n{self.note}".rstrip() + "\n"

    def table(self) -> Table:
        shown = Table(*self.columns, title=self.title, caption=self.note or None, title_justify="left")
        for row in self.rows:
            shown.add_row(*row)
        return shown


def sections(results: Results) -> Iterator[Section]:
    """The report, of what was measured."""
    yield Section(
        "Criteria",
        ("criterion", "needed", "measured", "rounds", "met"),
        [
            (
                each.what,
                f"{'at most ' if each.at_most else ''}{each.kind.show(each.needed)}",
                each.kind.show(each.measured),
                ", ".join(each.kind.show(one) for one in each.rounds),
                "yes" if each.met else "no",
            )
            for each in results.criteria
        ],
        "".join(f"Skipped: {each}. " for each in results.skipped),
    )
    if results.texts:
        yield _encoder_section(results, results.texts)
    if results.jobs:
        yield from _job_sections(results)
    if results.sizes:
        yield _size_section(results)


def _encoder_section(results: Results, texts: Texts) -> Section:
    return Section(
        "Encoder, RoBERTa-base",
        ("way", "texts a second, median", "off the vectors of transformers, of their length"),
        [
            (name, f"{statistics.median(rates):,.0f}", f"{100 * results.off[name]:.2g} %")
            for name, rates in results.encoders.items()
        ]
        + [(f"{FAULTLINE}, distinct texts", f"{statistics.median(results.distinct):,.0f}", "")],
        f"The bare matrix product: {statistics.median(results.matrix) / 1e9:,.0f} GFLOP/s. Of {texts.number:,} texts "
        f"{texts.distinct:.0%} are distinct, of each {GROUP_TURNS:,} {texts.distinct_of_group:.0%}.",
    )


def _job_sections(results: Results) -> Iterator[Section]:
    agreed = results.agreement
    moved = ", ".join(f"{label} {count:,}" for label, count in agreed["differences"].items()) or "none"
    yield Section(
        "Whole job, builtin model",
        ("job", "turns a second, median"),
        [(name, f"{statistics.median(rates):,.0f}") for name, rates in results.jobs.items()],
        f"Of {agreed['turns']:,} turns {agreed['different_turns']:,} differ ({moved}), "
        f"{agreed['far_differences']:,} of these differences farther than .02 from a threshold, the farthest "
        f"{agreed['farthest']:.3f}. No probability of a failure point moves by more than {agreed['largest_move']:.3f}.",
    )
    yield Section(
        "Where the time of faultline label goes",
        ("stage", "share, median"),
        [
            (name, Kind.SHARE.show(statistics.median(shares[name] for shares in results.stages)))
            for name in results.stages[0]
        ],
    )


def _size_section(results: Results) -> Section:
    return Section(
        "Size of the log, and processes",
        (
            "turns",
            "processes",
            "threads of each",
            "seconds",
            "turns a second",
            "work a turn",
            "peak memory",
            "core-hours a million turns",
        ),
        [
            (
                f"{each.turns:,}",
                str(each.processes),
                str(each.threads),
                f"{each.seconds:,.1f}",
                f"{each.turns / each.seconds:,.0f}",
                f"{1e3 * each.work:.3f} ms",
                f"{each.peak / 2**20:,.0f} MiB",
                f"{each.seconds * each.processes * each.threads / each.turns * 1e6 / 3600:.3f}",
            )
            for each in [*results.sizes, *results.workers]
        ],
    )


def plot(results: Results, path: Path) -> None:
    """The ratios and what they should be, as bars; sizes have none."""
    ratios = [each for each in results.criteria if each.kind is Kind.RATIO]
    shares = [each for each in results.criteria if each.kind is Kind.SHARE and not each.at_most]
    figure, both = plt.subplots(2, 1, figsize=(9, 5), height_ratios=(len(ratios), len(shares)), layout="constrained")
    for axes, criteria, scale in zip(both, (ratios, shares), (1, 100), strict=True):
        for place, each in enumerate(reversed(criteria)):
            low, high = (scale * limit(each.rounds) for limit in (min, max))
            measured, needed = scale * each.measured, scale * each.needed
            axes.barh(place, measured, color="tab:blue" if each.met else "tab:orange")
            axes.plot([low, high], [place, place], color="black")
            axes.plot([needed, needed], [place - 0.4, place + 0.4], color="black", linestyle=":")
        axes.set_yticks(range(len(criteria)), [each.what for each in reversed(criteria)])
    both[0].set_xlabel("times as fast")
    both[1].set_xlabel("%")
    figure.suptitle("Bar: median of the rounds; line: their range; dotted: what is asked")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def machine(threads: int) -> dict[str, str]:
    """What it was measured on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")), platform.processor()
    )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "apache-beam")}
    return {
        "processor": cpu,
        "threads": str(threads),
        "arithmetic": " ".join(name for name in ("amx_bf16", "avx512_bf16") if name in _flags()) or "no bf16",
        **versions,
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _flags() -> list[str]:
    return next((line.split() for line in _cpu_info() if line.startswith("flags")), [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--turns", type=int, default=FULL.sizes[-1], help="of the largest simulated log (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of little: does it work?")
    parser.add_argument(
        "--only",
        nargs="+",
        type=Part,
        choices=list(Part),
        metavar="PART",
        help=f"what to measure, of {', '.join(Part)} (default: all)",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--output", type=Path, help="folder of the report (default: a new temporary one)")
    options = parser.parse_args()
    parts: Sequence[Part] = options.only or list(Part)
    scale = QUICK if options.quick else replace(FULL, sizes=_sizes(options.turns))
    output = options.output or Path(tempfile.mkdtemp(prefix="faultline-speed-"))
    output.mkdir(parents=True, exist_ok=True)
    out, progress = Console(), Console(stderr=True)
    results = Results(machine(options.threads))
    started = time.monotonic()

    def say(what: str) -> None:
        progress.print(f"{time.monotonic() - started:6.0f} s  {what}", highlight=False)

    with tempfile.TemporaryDirectory() as folder:
        work = [Path(folder) / name for name in ("logs", "encoders", "jobs", "sizes")]
        for each in work:
            each.mkdir()
        log = Log(REAL, "dstc2") if REAL.exists() else simulated(work[0], SIMULATED_TURNS, 1)[0]
        if Part.ENCODERS in parts:
            compare_encoders(results, log, scale, work[1], options.threads, say)
        if Part.JOBS in parts:
            compare_jobs(results, log, scale, work[2], options.threads, say)
        if Part.SIZES in parts:
            grow(results, scale, work[3], options.threads, say)
    report = list(sections(results))
    (output / "speed.json").write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")
    measured_on = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    logs = f"encoders and jobs: {log.path.name}, sizes: simulated logs"
    texts = [f"# Speed\n\n{measured_on}; {logs}\n", *(section.markdown() for section in report)]
    (output / "speed.md").write_text("\n".join(texts), encoding="utf-8")
    picture = output / "speed.png"
    if results.texts or results.jobs:
        plot(results, picture)
    else:
        picture.unlink(missing_ok=True)
    for section in report:
        out.print(section.table())
    written = ", ".join(path.name for path in sorted(output.glob("speed.*")))
    out.print(f"{output}: {written}", highlight=False, soft_wrap=True)


def _sizes(turns: int) -> tuple[int, ...]:
    smaller = tuple(size for size in FULL.sizes if size < turns)
    return (*smaller, turns)


if __name__ == "__main__":
    main()
