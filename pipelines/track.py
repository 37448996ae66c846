"""`faultline track`: sends the runs to MLflow that could not be sent when they ended.

What `faultline label` is to send comes into `OUTPUT/untracked` with the labels, a file a run, and goes when MLflow has
it: where MLflow is down, or the run is killed before, it stays. What is sent later is the same, with the same times. A
run that is sent twice is one run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from pipelines import storage
from pipelines.errors import RunFailed, UserError
from pipelines.options import OptionParser
from pipelines.staging import FOLDER
from pipelines.tracking import LabelRun, log_label_run

UNTRACKED = "untracked"


class TrackSettings(NamedTuple):
    """What `faultline track` was asked to do."""

    output: str
    """Absolute path or address."""
    tracking_uri: str | None


def note(run: LabelRun) -> tuple[str, str]:
    """Path below the output, and text, of what is kept of a run until MLflow has it."""
    # In the order that its counts have, which is theirs in MLflow.
    return _path(run), msgspec.json.format(msgspec.json.encode(run), indent=2).decode()


def keep(output: str, run: LabelRun) -> str:
    """Keeps a run that could not be sent; gives the command that sends it. Raises `OSError`."""
    path, text = note(run)
    storage.write_bytes(_place(output, path), text.encode(), temporary=storage.join(output, FOLDER, "tmp"))
    where = "" if run.tracking_uri is not None else " --mlflow-tracking-uri URI"
    return f"faultline track {output}{where}"


def forget(output: str, run: LabelRun) -> None:
    """Deletes what is kept of a run, if it is. Raises `OSError`."""
    storage.delete([_place(output, _path(run))])


def kept(output: str) -> list[str]:
    """The files of the runs that MLflow does not have."""
    return storage.list_files(storage.join(output, UNTRACKED))


def run(argv: Sequence[str] | None = None) -> list[str]:
    """Sends what is kept and gives the runs' ids in MLflow. Raises `UserError`, `RunFailed` and `TrackingError`."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    sent = []
    for path, each in _read(settings.output):
        tracking_uri = settings.tracking_uri or each.tracking_uri
        if tracking_uri is None:
            raise UserError(
                f"Run {each.summary.run_id} was to go to an address with a password, which is not kept: give it with "
                "--mlflow-tracking-uri."
            )
        sent.append(log_label_run(each, tracking_uri))
        try:
            storage.delete([path])
        except OSError as error:
            raise RunFailed(
                f"Run {each.summary.run_id} is in MLflow, but {path} cannot be deleted ({error}): try again."
            ) from error
        console.print(f"Sent: run {each.summary.run_id}, in MLflow's experiment {each.experiment} as {sent[-1]}.")
    if not sent:
        console.print(f"No run in {settings.output} is left to send.")
    return sent


def parse(argv: Sequence[str]) -> TrackSettings:
    """The settings in a command line. Raises `UserError`; exits for `--help`."""
    parser = OptionParser("faultline track", (__doc__ or "").partition("\n")[0])
    parser.add_argument("output", metavar="OUTPUT", help="the --output folder of faultline label")
    parser.add_argument(
        "--mlflow-tracking-uri", metavar="URI", help="where the runs are logged (default: where each was to go)"
    )
    options = parser.parse_args(argv)
    output = storage.absolute(options.output)
    try:
        missing = storage.has_folders(output) and not Path(output).is_dir()
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot use {output}: {error}.") from None
    if missing:
        raise UserError(f"There is no folder {output}: name the --output of faultline label.")
    return TrackSettings(output, options.mlflow_tracking_uri)


def _path(run: LabelRun) -> str:
    return f"{UNTRACKED}/{run.attempt}.json"


def _place(output: str, path: str) -> str:
    return storage.join(output, *path.split("/"))


def _read(output: str) -> list[tuple[str, LabelRun]]:
    """In the order in which they ended. Raises `UserError` and `RunFailed`."""
    found = []
    try:
        for path in kept(output):
            try:
                found.append((path, storage.read_json(path, LabelRun)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{path} is no run that faultline label has kept ({error}): move it away.") from None
    except OSError as error:
        raise RunFailed(f"Cannot read what is kept in {output} ({error}): try again.") from error
    return sorted(found, key=lambda each: each[1].ended_at)


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["track", *sys.argv[1:]]))
