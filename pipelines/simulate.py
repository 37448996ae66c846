"""`faultline simulate`: writes dialogue logs of a simulated assistant, whose faults are known.

The world is in `pipelines.simulation`; docs/simulate.md says what is simulated and what is not. Here a run of
dialogues is cut into shards, a shard is simulated and written by one worker, and all are published at the end.
The bytes of a shard follow from the seed, the rates, the share of calls and its range of dialogues alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import hashlib
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import apache_beam as beam
import msgspec
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from pipelines import storage
from pipelines.errors import RunFailed, UserError, unwritable
from pipelines.options import OptionParser, fraction, whole_number
from pipelines.simulation.assistant import Assistant
from pipelines.simulation.calibration import DEFAULT_RATES, MOST, STAGES, TELEPHONE, calibrate
from pipelines.simulation.dialogue import Knobs, simulate
from pipelines.simulation.world import World
from schemas.log import FailurePoint

PROG = "faultline simulate"
_SHARD_DIALOGUES = 5_000
_NAME = "dialogues-*.jsonl.gz"
"""File names in an output that is a folder."""
_SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class SimulateSettings:
    """What `faultline simulate` was asked to do."""

    dialogues: int
    output: str
    """Path of the files, with one `*` for the shard's number where there is more than one shard."""
    seed: int
    rates: Mapping[FailurePoint, float]
    telephone: float
    """Share of the dialogues that are telephone calls."""
    shards: int


class Shard(Struct, frozen=True):
    """Dialogues `first` up to, not with, `end`, and the file that they go to."""

    path: str
    draft: str
    first: int
    end: int


class ShardResult(Struct, frozen=True):
    """What is in a finished shard."""

    path: str
    dialogues: int
    turns: int
    bytes: int
    failure_points: dict[str, int]


class SimulateSummary(Struct, frozen=True):
    """What came out of a run."""

    dialogues: int
    turns: int
    failure_points: dict[str, int]
    paths: tuple[str, ...]
    seconds: float


def run(argv: Sequence[str] | None = None) -> SimulateSummary:
    """Runs the job by command line. Raises `UserError` and `RunFailed`."""
    settings, beam_options = parse(sys.argv[1:] if argv is None else argv)
    _check_output(settings)
    console = Console(markup=False)
    started = time.monotonic()
    knobs = calibrate(_assistant(), settings.rates, settings.telephone)
    staging, shards = _staging(settings), _shards(settings)
    try:
        _execute(shards, knobs, settings.seed, beam_options)
        results = [storage.read_json(_result_path(shard), ShardResult) for shard in shards]
        for shard in shards:
            # Gone where an earlier try was stopped while it published.
            if storage.exists(shard.draft):
                storage.rename(shard.draft, shard.path)
        storage.delete_folder(staging)
    except OSError as error:
        raise RunFailed(f"The run failed: {error}. What is finished is kept in {staging}.") from error
    points: Counter[str] = Counter()
    for result in results:
        points.update(result.failure_points)
    summary = SimulateSummary(
        dialogues=sum(result.dialogues for result in results),
        turns=sum(result.turns for result in results),
        failure_points=dict(points),
        paths=tuple(shard.path for shard in shards),
        seconds=time.monotonic() - started,
    )
    _print_summary(summary, settings, console)
    return summary


def parse(argv: Sequence[str]) -> tuple[SimulateSettings, PipelineOptions]:
    """The settings in a command line and Beam's own options. Raises `UserError`; exits for `--help`."""
    parsed, beam_options = _parser().parse_with_beam(argv)
    shards = parsed.shards or -(-parsed.dialogues // _SHARD_DIALOGUES)
    if shards > parsed.dialogues:
        raise UserError(f"--shards {shards} is more than --dialogues {parsed.dialogues}: ask for fewer files.")
    output = storage.absolute(parsed.output)
    try:
        storage.has_folders(output)
    except ValueError as error:
        raise UserError(f"Cannot use --output {parsed.output}: {error}.") from None
    if not output.endswith(_SUFFIXES):
        if any(mark in output for mark in "*?["):
            raise UserError(f"--output {parsed.output} must end with .jsonl or .jsonl.gz, or be a folder.")
        output = storage.join(output, _NAME)
    folder, name = FileSystems.split(output)
    if any(mark in folder for mark in "*?[") or any(mark in name for mark in "?[") or name.count("*") > 1:
        raise UserError(f"--output {parsed.output} may have one * in the file's name, and no other pattern.")
    if shards > 1 and "*" not in name:
        raise UserError(
            f"{shards} files do not go into one --output {parsed.output}: put a * in the file's name for their "
            "number, or give --shards 1."
        )
    settings = SimulateSettings(parsed.dialogues, output, parsed.seed, parsed.fault_rates, parsed.telephone, shards)
    return settings, beam_options


def fault_rates(text: str) -> dict[FailurePoint, float]:
    """For argparse: `wake=0.03,asr=0.1`, the others at their defaults."""
    rates = dict(DEFAULT_RATES)
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in STAGES or not re.fullmatch(r"0?\.\d+|0|1|[01]\.0*", value.strip()):
            raise argparse.ArgumentTypeError(
                f"{part!r} is not STAGE=RATE, with a stage of {', '.join(STAGES)} and a rate from 0 to {MOST}"
            )
        if float(value) > MOST:
            raise argparse.ArgumentTypeError(f"{part!r} is more than {MOST}: no stage can fail that often")
        rates[FailurePoint(name.strip())] = float(value)
    return rates


def _parser() -> OptionParser:
    parser = OptionParser(
        PROG,
        "Writes dialogue logs of a simulated voice assistant in the canonical format, with the truth as annotations.",
        "Beam's own options are taken, too. The same seed, rates, share of calls, dialogues and shards give the same "
        "bytes, whatever the runner and the number of workers. "
        "Exit code: 0 done, 1 the run failed and published nothing, 2 the options are wrong.",
    )
    add = parser.add_argument
    add("--dialogues", type=whole_number, required=True, metavar="N", help="how many to write")
    add(
        "--output",
        required=True,
        metavar="FILES",
        help="a folder, or files that end with .jsonl or .jsonl.gz, with a * for the shard's number "
        f"(local, gs://, s3://); in a folder they are called {_NAME.replace('*', '00000-of-00010')}",
    )
    add("--seed", type=int, default=0, metavar="S", help="another seed, other dialogues (default: %(default)s)")
    add(
        "--fault-rates",
        type=fault_rates,
        default=dict(DEFAULT_RATES),
        metavar="STAGE=RATE,…",
        help=f"share of turns, 0 to {MOST:g}, that each stage is to be the failure point of "
        f"(default: {','.join(f'{stage}={rate:g}' for stage, rate in DEFAULT_RATES.items())})",
    )
    add(
        "--telephone",
        type=fraction,
        default=TELEPHONE,
        metavar="SHARE",
        help="share of the dialogues, 0 to 1, that are calls on an open telephone line, without a wake word "
        "(default: %(default)s)",
    )
    add(
        "--shards",
        type=whole_number,
        metavar="N",
        help=f"number of files (default: one for every {_SHARD_DIALOGUES:,} dialogues)",
    )
    add("--verbose", action="store_true", help="show the log lines of Beam and the other libraries")
    return parser


class SimulateShard(beam.DoFn):  # type: ignore[misc]
    """A shard → its path, once its draft and its result lie in staging. A finished one is not done again."""

    def __init__(self, knobs: Knobs, seed: int) -> None:
        self.knobs = knobs
        self.seed = seed

    def process(self, shard: Shard) -> Iterator[str]:
        if not storage.exists(_result_path(shard)):
            write_shard(shard, self.knobs, self.seed)
        yield shard.path


def write_shard(shard: Shard, knobs: Knobs, seed: int) -> None:
    """Simulates a shard into its draft file, then writes its result beside it."""
    assistant = _assistant()
    turns = 0
    points: Counter[str] = Counter()
    encoder = msgspec.json.Encoder()
    size = 0
    with _writing(shard.draft, compressed=shard.path.endswith(".gz")) as lines:
        for index in range(shard.first, shard.end):
            dialogue = simulate(assistant, knobs, seed, index)
            turns += len(dialogue.turns)
            points.update(str(turn.annotation.failure_point) for turn in dialogue.turns if turn.annotation)
            line = encoder.encode(dialogue) + b"\n"
            size += len(line)
            lines.write(line)
    result = ShardResult(shard.path, shard.end - shard.first, turns, size, dict(points))
    storage.write_json(_result_path(shard), result, temporary=FileSystems.split(shard.draft)[0])


@contextlib.contextmanager
def _writing(path: str, *, compressed: bool) -> Iterator[BinaryIO]:
    """A file on any file system, plain or gzip; the same bytes for the same lines."""
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        if not compressed:
            yield stream
            return
        # Without a name and a time in its header.
        with gzip.GzipFile("", "wb", 6, stream, mtime=0) as lines:
            yield cast(BinaryIO, lines)


def _execute(shards: Sequence[Shard], knobs: Knobs, seed: int, beam_options: PipelineOptions) -> None:
    try:
        pipeline = beam.Pipeline(options=beam_options)
        (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "Spread" >> beam.Reshuffle()
            | "Simulate" >> beam.ParDo(SimulateShard(knobs, seed))
        )
        state = pipeline.run().wait_until_finish()
    # Whatever a runner raises, it has raised because the run failed.
    except Exception as error:
        logging.getLogger(__name__).debug("the run failed", exc_info=True)
        reason = next(reversed([line for line in str(error).splitlines() if line.strip()]), type(error).__name__)
        raise RunFailed(f"The run failed: {reason.strip()}. The same command goes on with what is missing.") from error
    if state != PipelineState.DONE:
        raise RunFailed(f"The run ended as {state}, not as {PipelineState.DONE}: the same command goes on.")


def _check_output(settings: SimulateSettings) -> None:
    """Raises `JobError` where readers of the output would find other logs among these, or nothing can be written."""
    ours = set(_paths(settings))
    try:
        others = [each.path for each in storage.match(settings.output) if each.path not in ours]
        if others:
            raise UserError(f"{others[0]} is already there and not of this run: choose another --output.")
        staging = _staging(settings)
        probe = storage.join(staging, "probe")
        storage.write_bytes(probe, b"", temporary=staging)
        storage.delete([probe])
    except OSError as error:
        raise unwritable(f"--output {settings.output}", error) from error


def _paths(settings: SimulateSettings) -> list[str]:
    return [settings.output.replace("*", f"{number:05d}-of-{settings.shards:05d}") for number in range(settings.shards)]


def _staging(settings: SimulateSettings) -> str:
    """Where drafts of just these settings go: beside the output, where no pattern of it looks."""
    what = msgspec.json.encode(
        [
            settings.dialogues,
            settings.output,
            settings.seed,
            sorted(settings.rates.items()),
            settings.telephone,
            settings.shards,
        ]
    )
    return storage.join(FileSystems.split(settings.output)[0], f"_simulating-{hashlib.sha256(what).hexdigest()[:12]}")


def _shards(settings: SimulateSettings) -> list[Shard]:
    staging, count = _staging(settings), settings.shards
    return [
        Shard(
            path=path,
            draft=storage.join(staging, f"{number:05d}"),
            first=number * settings.dialogues // count,
            end=(number + 1) * settings.dialogues // count,
        )
        for number, path in enumerate(_paths(settings))
    ]


def _result_path(shard: Shard) -> str:
    return f"{shard.draft}.json"


@functools.cache
def _assistant() -> Assistant:
    """One a process: it takes seconds to train."""
    return Assistant(World())


def _print_summary(summary: SimulateSummary, settings: SimulateSettings, console: Console) -> None:
    table = Table("", "", "asked for", title=f"Simulated with seed {settings.seed}", title_justify="left")
    table.columns[1].justify = table.columns[2].justify = "right"
    table.add_row("dialogues", f"{summary.dialogues:,}")
    table.add_row("turns", f"{summary.turns:,}")
    table.add_section()
    for point in FailurePoint:
        share = summary.failure_points.get(point, 0) / max(summary.turns, 1)
        asked = f"{settings.rates[point]:.1%}" if point in settings.rates else ""
        table.add_row(point, f"{share:.1%}", asked)
    table.add_section()
    table.add_row("turns a second", f"{summary.turns / summary.seconds:,.0f}")
    console.print(table)
    console.print(f"Files: {settings.output}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["simulate", *sys.argv[1:]]))
