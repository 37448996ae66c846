"""The options of `faultline label`, and the settings that they become."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import dates, storage
from pipelines.chunks import ChunkSize
from pipelines.credentials import has_password
from pipelines.errors import UserError
from pipelines.options import Device, OptionParser, add_device, fraction, positive, whole_number
from pipelines.privacy import KEY, KEY_FILE, Id, Privacy
from schemas.formats import UnknownFormatError, formats, get_format
from schemas.ontology import Ontology, OntologyError

PROG = "faultline label"


@dataclass(frozen=True)
class LabelSettings:
    """What `faultline label` was asked to do. Paths are absolute."""

    inputs: tuple[str, ...]
    input_format: str
    output: str
    model: str
    ontology: Ontology | None
    limit: int | None
    """Records."""
    max_reject_rate: float
    by_date: bool
    session_gap_minutes: float
    chunk_bytes: int
    privacy: Privacy
    tracking_uri: str | None
    """None: a SQLite file beside the output."""
    experiment: str
    device: Device
    dry_run: bool
    progress: bool


def parse(argv: Sequence[str]) -> tuple[LabelSettings, PipelineOptions]:
    """The settings in a command line and Beam's own options. Raises `UserError`; exits for `--help`."""
    parsed, beam_options = _parser().parse_with_beam(argv)
    for option, value in (("--input", parsed.input), ("--output", [parsed.output]), ("--model", [parsed.model])):
        if any(map(has_password, value)):
            raise UserError(
                f"{option} has a user or a password in its address, which would be kept with the labels: give them as "
                "the store's own client takes them, by the environment or a file."
            )
    try:
        get_format(parsed.input_format)
    except UnknownFormatError as error:
        raise UserError(str(error)) from None
    inputs, output = _paths(parsed)
    try:
        storage.has_folders(output)
    except ValueError as error:
        raise UserError(f"Cannot use --output {parsed.output}: {error}.") from None
    if any(mark in output for mark in "*?["):
        raise UserError(f"--output {parsed.output} is a pattern: name a folder without * ? or [ in its path.")
    model = parsed.model
    return LabelSettings(
        inputs=inputs,
        input_format=parsed.input_format,
        output=output,
        model=storage.absolute(model) if storage.is_folder(storage.absolute(model)) else model,
        ontology=None if parsed.ontology is None else _ontology(parsed.ontology),
        limit=parsed.limit,
        max_reject_rate=parsed.max_reject_rate,
        by_date=parsed.partition_by == "date",
        session_gap_minutes=parsed.session_gap_minutes,
        chunk_bytes=parsed.chunk_bytes,
        privacy=Privacy.of(parsed.pseudonymize, parsed.redact),
        tracking_uri=parsed.mlflow_tracking_uri,
        experiment=parsed.experiment,
        device=Device(parsed.device),
        dry_run=parsed.dry_run,
        progress=not parsed.no_progress,
    ), beam_options


def _paths(parsed: argparse.Namespace) -> tuple[tuple[str, ...], str]:
    """The input patterns, each once, and the output: absolute, with the date in its places."""
    paths: list[str] = [*parsed.input, parsed.output]
    if parsed.date is None:
        waiting = next((path for path in paths if dates.has_place(path)), None)
        if waiting is not None:
            raise UserError(f"{waiting} has a place for a date: say which with --date YYYY-MM-DD.")
    else:
        undated = next((pattern for pattern in parsed.input if not dates.has_place(pattern)), None)
        if undated is not None:
            raise UserError(f"--input {undated} is the same for every --date: put {{date}} where its date belongs.")
        paths = [dates.fill(path, parsed.date) for path in paths]
    *inputs, output = map(storage.absolute, paths)
    return tuple(dict.fromkeys(inputs)), output


def _ontology(path: str) -> Ontology:
    try:
        return Ontology.read(Path(storage.absolute(path)))
    except OSError as error:
        raise UserError(f"Cannot read --ontology {path}: {error.strerror or error}.") from None
    except OntologyError as error:
        raise UserError(f"{error}.") from None


def _ids(text: str) -> tuple[Id, ...]:
    """For argparse: the fields of `--pseudonymize`, in their own order."""
    asked = {field.strip() for field in text.split(",")}
    if not asked <= set(Id):
        raise argparse.ArgumentTypeError(f"{text!r} is not of {','.join(Id)}")
    return tuple(field for field in Id if field in asked)


def _minutes(text: str) -> float:
    """For argparse: a number greater than 0 that a time span can have."""
    minutes = positive(text)
    try:
        dt.timedelta(minutes=minutes)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than any time span: give fewer minutes") from None
    return minutes


def _parser() -> OptionParser:
    parser = OptionParser(
        PROG,
        "Labels dialogue logs: goals, success, intent, slots and the failure point of every turn.",
        "Beam's own options are taken, too. "
        "Exit code: 0 done, 1 the run failed and published nothing, 2 the options are wrong.",
    )
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        metavar="GLOB",
        help="files to label: a path or glob (local, gs://, s3://), plain or gzip; can be given several times",
    )
    add(
        "--input-format",
        default="jsonl",
        metavar="NAME",
        help=f"one of {', '.join(formats())} (default: %(default)s)",
    )
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="folder of the tables turns, goals, dialogues and rejected; what other inputs left there stays",
    )
    add(
        "--date",
        type=dates.date,
        metavar="YYYY-MM-DD",
        help="the day whose logs are labelled, or yesterday (in UTC): it is put in place of {date} in --input and "
        "--output; {date:%%Y/%%m/%%d} is another form of it (default: none)",
    )
    add(
        "--model",
        default="builtin",
        metavar="MODEL",
        help="a model folder, models:/NAME@ALIAS of MLflow, or builtin (default: %(default)s)",
    )
    add(
        "--ontology",
        metavar="FILE",
        help="JSON in the form of SGD's schema.json: the intents and slots of your assistant "
        "(default: those in the logs' own NLU hypotheses; where there are none, those that the model was trained on)",
    )
    add(
        "--limit",
        type=whole_number,
        metavar="N",
        help="label only the first N records of the input, files in the order of --input and by path; a record is "
        "what the format has on a line: a dialogue, or a turn event (default: all)",
    )
    add(
        "--max-reject-rate",
        type=fraction,
        default=0.5,
        metavar="RATE",
        help="fail if more than this fraction of the records, 0 to 1, is rejected (default: %(default)s)",
    )
    add(
        "--partition-by",
        choices=["date"],
        help="split turns, goals and dialogues into Hive partitions date=YYYY-MM-DD by the dialogue's start in UTC "
        "(default: no partitions)",
    )
    add(
        "--session-gap-minutes",
        type=_minutes,
        default=30.0,
        metavar="MINUTES",
        help="formats of single turns: a longer pause between the starts of two turns of a session ends the "
        "dialogue (default: %(default)g minutes)",
    )
    add(
        "--chunk-bytes",
        type=whole_number,
        default=ChunkSize().bytes,
        metavar="BYTES",
        help="uncompressed records of one unit of work; what is finished of these is not done again after a crash "
        "(default: %(default)s bytes)",
    )
    add(
        "--pseudonymize",
        nargs="?",
        type=_ids,
        default=(),
        const=tuple(Id),
        metavar="FIELDS",
        help=f"replace the ids in these fields of a dialogue, joined by commas, by a keyed hash: {','.join(Id)}; "
        f"without FIELDS all of them; the key is in the environment variable {KEY}, or in the file that {KEY_FILE} "
        "names (default: none)",
    )
    add(
        "--redact",
        action="store_true",
        help="mask e-mail addresses, phone, card and account numbers and the like in what is written of the logs' "
        "texts",
    )
    add(
        "--mlflow-tracking-uri",
        metavar="URI",
        help="where the run is logged (default: a SQLite file mlflow.db in DIR)",
    )
    add("--experiment", default="faultline-label", metavar="NAME", help="MLflow experiment (default: %(default)s)")
    add_device(parser)
    add("--dry-run", action="store_true", help="print the settings and the plan, and write nothing")
    add("--no-progress", action="store_true", help="no progress bar and no progress lines")
    add("--verbose", action="store_true", help="show the log lines of Beam and the other libraries")
    return parser
