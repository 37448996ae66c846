"""`faultline drift`: whether labels, confidences or inputs are distributed otherwise than in a reference output.

What is compared, and how, is said in `pipelines.distributions`. For a scheduler: exit code 3 where a distribution has
drifted, so that an alarm is not taken for a failure of the job.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from pipelines import storage
from pipelines.distributions import LARGE, MODERATE, Drift, drifts
from pipelines.errors import DriftFound, UserError, unwritable
from pipelines.labelled import Labelled
from pipelines.options import OptionParser, positive
from pipelines.tracking import TrackingError, default_tracking_uri, log_drift_run

PROG = "faultline drift"
_CELLS_SHOWN = 3
_PIPED_WIDTH = 160


@dataclass(frozen=True)
class DriftSettings:
    """All of a run's options."""

    labels: str
    reference: str
    threshold: float
    """PSI"""
    output: str | None
    tracking_uri: str
    experiment: str


class DriftReport(Struct, frozen=True):
    """What `--output` holds."""

    labels: str
    reference: str
    runs: tuple[str, ...]
    """ids of the runs whose labels were looked at"""
    reference_runs: tuple[str, ...]
    threshold: float
    drifted: tuple[str, ...]
    """quantities, the largest PSI first"""
    drifts: tuple[Drift, ...]
    not_compared: tuple[str, ...]
    """quantities that one side does not have, or both"""
    notes: tuple[str, ...]
    """what of the logs could not be read"""


def run(argv: Sequence[str] | None = None) -> DriftReport:
    """Compares by command line and prints the distributions.

    Raises `UserError`, and `DriftFound` after everything is printed, written and logged.
    """
    settings = parse(sys.argv[1:] if argv is None else argv)
    report = find(settings.labels, settings.reference, settings.threshold)
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, markup=False)
    show(report, console)
    text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
    if settings.output is not None:
        try:
            storage.write_bytes(settings.output, text.encode(), temporary=str(Path(settings.output).parent))
        except OSError as error:
            raise unwritable(f"--output {settings.output}", error) from error
    try:
        log_drift_run(
            tracking_uri=settings.tracking_uri,
            experiment=settings.experiment,
            run_name=f"drift {' '.join(report.runs)}",
            parameters=asdict(settings) | {"runs": report.runs, "reference_runs": report.reference_runs},
            metrics={"drifted": len(report.drifted)}
            | {f"psi/{each.quantity}": each.psi for each in report.drifts}
            | {f"adjusted_p_value/{each.quantity}": each.adjusted_p_value for each in report.drifts},
            drift_json=text,
        )
    except TrackingError as error:
        # The alarm is worth more than its log.
        Console(stderr=True, markup=False).print(f"The run is not in MLflow: {error}", style="yellow", highlight=False)
    if report.drifted:
        raise DriftFound(
            f"{len(report.drifted)} of {len(report.drifts)} distributions have drifted from {report.reference}: "
            f"{', '.join(report.drifted)}."
        )
    return report


def parse(argv: Sequence[str]) -> DriftSettings:
    """The settings that the command line asks for. Raises `UserError`."""
    options = _parser().parse_args(argv)
    labels = storage.absolute(options.labels)
    output = None if options.output is None else storage.absolute(options.output)
    if output is not None and not storage.is_folder(Path(output).parent):
        raise UserError(f"--output {options.output} must be a file in a local folder that is there: name another.")
    return DriftSettings(
        labels=labels,
        reference=storage.absolute(options.reference),
        threshold=options.threshold,
        output=output,
        tracking_uri=options.mlflow_tracking_uri or default_tracking_uri(labels),
        experiment=options.experiment,
    )


def find(labels: str, reference: str, threshold: float) -> DriftReport:
    """The distributions of the output in the folder `labels` against those of `reference`. Raises `UserError`."""
    with Labelled.open(labels) as labelled, Labelled.open(reference) as against:
        found = drifts(labelled, against)
        drifted = sorted((each for each in found.drifts if each.exceeds(threshold)), key=lambda each: -each.psi)
        return DriftReport(
            labels=labelled.folder,
            reference=against.folder,
            runs=tuple(manifest.run_id for manifest in labelled.manifests),
            reference_runs=tuple(manifest.run_id for manifest in against.manifests),
            threshold=threshold,
            drifted=tuple(each.quantity for each in drifted),
            drifts=found.drifts,
            not_compared=found.not_compared,
            notes=tuple(dict.fromkeys([*labelled.notes, *against.notes])),
        )


def show(report: DriftReport, console: Console) -> None:
    """Prints a report."""
    table = Table(
        "distribution of",
        "kind",
        "rows",
        "in reference",
        "PSI",
        "p",
        "",
        "what moved most",
        title=f"{report.labels} against {report.reference}",
        title_justify="left",
        caption=f"PSI: under {MODERATE:g} stable, from {LARGE:g} large. p: chi-squared or Kolmogorov-Smirnov, adjusted "
        "for the number of distributions.",
        caption_justify="left",
    )
    for column in table.columns[2:6]:
        column.justify = "right"
    kind = None
    for each in report.drifts:
        if each.kind != kind:
            table.add_section()
            kind = each.kind
        drifted = each.quantity in report.drifted
        table.add_row(
            each.quantity,
            each.kind,
            f"{each.rows:,}",
            f"{each.reference_rows:,}",
            f"{each.psi:.3f}",
            f"{each.adjusted_p_value:.2g}",
            "drifted" if drifted else "",
            _moved(each) if each.psi >= MODERATE or drifted else "",
            style="bold red" if drifted else None,
        )
    console.print(table)
    if report.not_compared:
        console.print(f"Not compared, as one side does not have it: {', '.join(report.not_compared)}.", highlight=False)
    for note in report.notes:
        console.print(note, style="yellow", highlight=False, markup=False)


def _moved(drift: Drift) -> str:
    most = sorted(drift.cells, key=lambda cell: -abs(cell.share - cell.reference_share))[:_CELLS_SHOWN]
    return "; ".join(f"{cell.name} {cell.reference_share:.1%} → {cell.share:.1%}" for cell in most)


def _parser() -> OptionParser:
    parser = OptionParser(
        PROG,
        "Compares the distributions of labels, confidences and inputs with those of a reference output.",
        "Exit code: 0 nothing has drifted, 1 the run failed, 2 the options are wrong, 3 something has drifted.",
    )
    add = parser.add_argument
    add("--labels", required=True, metavar="DIR", help="an --output of faultline label")
    add("--reference", required=True, metavar="DIR", help="the one that it is compared with")
    add(
        "--threshold",
        type=positive,
        default=MODERATE,
        metavar="PSI",
        help="population stability index from which a distribution has drifted, if a test says that it is not by "
        "chance (default: %(default)g)",
    )
    add("--output", metavar="FILE", help="JSON file for all distributions")
    add(
        "--mlflow-tracking-uri",
        metavar="URI",
        help="where the run is logged (default: a SQLite file mlflow.db in the folder of --labels)",
    )
    add("--experiment", default="faultline-drift", metavar="NAME", help="MLflow experiment (default: %(default)s)")
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["drift", *sys.argv[1:]]))
