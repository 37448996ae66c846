"""`faultline track`: sends the runs to MLflow that could not be sent when they ended.

Where MLflow is down, `faultline label` keeps what it would have sent in `OUTPUT/untracked`, a file a run, and its
labels all the same. What is sent later is the same, with the same times. A run that is sent twice is one run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from pipelines import storage
from pipelines.errors import UserError
from pipelines.options import OptionParser
from pipelines.staging import FOLDER
from pipelines.tracking import LabelRun, log_label_run

UNTRACKED = "untracked"


class TrackSettings(NamedTuple):
    """What `faultline track` was asked to do."""

    output: str
    """Absolute path or address."""
    tracking_uri: str | None


def keep(output: str, run: LabelRun) -> str:
    """Keeps a run that could not be sent; gives the command that sends it. Raises `OSError`."""
    # In the order that its counts have, which is theirs in MLflow.
    content = msgspec.json.format(msgspec.json.encode(run), indent=2)
    storage.write_bytes(_path(output, run), content, temporary=storage.join(output, FOLDER, "tmp"))
    where = "" if run.tracking_uri is not None else " --mlflow-tracking-uri URI"
    return f"faultline track {output}{where}"


def run(argv: Sequence[str] | None = None) -> list[str]:
    """Sends what is kept and gives the runs' ids in MLflow. Raises `UserError` and `TrackingError`."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    console = Console(soft_wrap=True, highlight=False)
    sent = []
    for path, kept in _kept(settings.output):
        tracking_uri = settings.tracking_uri or kept.tracking_uri
        if tracking_uri is None:
            raise UserError(
                f"Run {kept.summary.run_id} was to go to an address with a password, which is not kept: give it with "
                "--mlflow-tracking-uri."
            )
        sent.append(log_label_run(kept, tracking_uri))
        storage.delete([path])
        console.print(f"Sent: run {kept.summary.run_id}, in MLflow's experiment {kept.experiment} as {sent[-1]}.")
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
    if storage.has_folders(output) and not Path(output).is_dir():
        raise UserError(f"There is no folder {output}: name the --output of faultline label.")
    return TrackSettings(output, options.mlflow_tracking_uri)


def _path(output: str, run: LabelRun) -> str:
    return storage.join(output, UNTRACKED, f"{run.attempt}.json")


def _kept(output: str) -> list[tuple[str, LabelRun]]:
    """In the order in which they ended."""
    found = []
    for path in storage.list_files(storage.join(output, UNTRACKED)):
        try:
            found.append((path, storage.read_json(path, LabelRun)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is no run that faultline label has kept ({error}): move it away.") from None
    return sorted(found, key=lambda each: each[1].ended_at)


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["track", *sys.argv[1:]]))
