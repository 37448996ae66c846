"""`faultline report`: one labelled output as a page that a product team reads.

The page is one HTML file that needs no network. What it says is counted in `pipelines.report_page.numbers`, which
failing dialogues it shows is chosen in `pipelines.report_page.examples`, and what moved the model is asked of the
model that made the labels (`labelers.explanation`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct
from rich.console import Console

from pipelines import storage
from pipelines.errors import UserError, unwritable
from pipelines.labelled import Labelled
from pipelines.options import OptionParser
from pipelines.publish import VALIDATION_JSON
from pipelines.report_page.changes import Changes, changes
from pipelines.report_page.charts import confidences, failed_over_time, percent, points_over_time
from pipelines.report_page.examples import choose, show
from pipelines.report_page.numbers import DEFECTS, RESAMPLES, WORST_INTENTS, Numbers, count
from pipelines.report_page.page import render
from pipelines.report_page.why import effects
from pipelines.results import add
from pipelines.tracking import TrackingError, default_tracking_uri, log_report_run

MEANING = {
    "correct": "no component failed, or the system recovered",
    "wake": "nobody spoke to the assistant, yet it acted",
    "asr": "the words were recognised wrongly",
    "nlu": "the words were right; the domain, intent or slot was understood wrongly",
    "er": "the slot was right; its value was resolved to the wrong entity",
    "result": "understood and resolved rightly, yet the wrong thing was done or said",
}
_CONFIDENCES = {
    "failure point": "turns.failure_point_confidence",
    "defect": "turns.defect_probability",
    "intent": "turns.intent_confidence",
    "goal success": "goals.success_confidence",
}


@dataclass(frozen=True)
class ReportSettings:
    """What `faultline report` was asked to do. Paths are absolute."""

    labels: str
    baseline: str | None
    output: str
    title: str | None
    note: str | None
    dialogues: int
    explain: int
    tracking_uri: str
    experiment: str


def run(argv: Sequence[str] | None = None) -> str:
    """Writes the page and gives its path. Raises `UserError` and `RunFailed`."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    out = Console(soft_wrap=True, highlight=False, markup=False)
    with Labelled.open(settings.labels) as labelled:
        numbers = count(labelled.connection)
        compared = _compared(labelled, settings.baseline)
        page = _page(settings, labelled, numbers, compared).encode(errors="replace")
    try:
        storage.write_bytes(settings.output, page, temporary=str(Path(settings.output).parent))
    except OSError as error:
        raise unwritable(f"--output {settings.output}", error) from error
    out.print(
        f"{numbers.turns:,} turns, of which {percent(numbers.failed.value)} failed; {numbers.goals:,} goals, of which "
        f"{percent(numbers.reached.value)} were reached."
    )
    out.print(f"The page: {settings.output} ({len(page) / 1e6:.1f} MB)")
    try:
        log_report_run(
            tracking_uri=settings.tracking_uri,
            experiment=settings.experiment,
            parameters=msgspec.to_builtins(settings),
            metrics=_metrics(numbers, compared),
            page=Path(settings.output),
        )
    except TrackingError as error:
        Console(stderr=True, markup=False).print(f"The page is not in MLflow: {error}", style="yellow", highlight=False)
    return settings.output


def parse(argv: Sequence[str]) -> ReportSettings:
    """The settings in a command line. Raises `UserError`; exits for `--help`."""
    options = _parser().parse_args(argv)
    labels = storage.absolute(options.labels)
    if options.output is None and "://" in labels:
        raise UserError(f"There is no default for --output where the labels are on {labels}: name a local file.")
    output = storage.absolute(options.output or storage.join(labels, "report.html"))
    if "://" in output:
        raise UserError(f"--output {options.output} must be a local file: name one, and copy it afterwards.")
    if storage.is_folder(output):
        raise UserError(f"--output {output} is a folder: name a file, e.g. {Path(output, 'report.html')}.")
    return ReportSettings(
        labels=labels,
        baseline=None if options.baseline is None else storage.absolute(options.baseline),
        output=output,
        title=options.title,
        note=options.note,
        dialogues=options.dialogues,
        explain=options.explain,
        tracking_uri=options.mlflow_tracking_uri or default_tracking_uri(labels),
        experiment=options.experiment,
    )


def _compared(labelled: Labelled, baseline: str | None) -> Changes | None:
    if baseline is None:
        return None
    # Its domains, devices and locales are in its logs.
    with Labelled.open(baseline) as before:
        return changes(labelled, before)


def _page(settings: ReportSettings, labelled: Labelled, numbers: Numbers, compared: Changes | None) -> str:
    counts = add(manifest.summary for manifest in labelled.manifests)
    chosen = choose(labelled.connection, settings.dialogues)
    why, unexplained = effects(labelled, chosen[: settings.explain], settings.tracking_uri)
    examples = show(labelled.connection, chosen, why)
    histograms = {what: counts.confidence.get(column, []) for what, column in _CONFIDENCES.items()}
    over_time = len(numbers.moments) > 1
    return render(
        examples.dialogues,
        title=settings.title or "Faultline report",
        note=settings.note,
        numbers=numbers,
        briefly=MEANING,
        defect_points=DEFECTS,
        counts=counts,
        changes=compared,
        notes=[*labelled.notes, *unexplained],
        over_time=(failed_over_time(numbers.moments, numbers.unit), points_over_time(numbers.moments, numbers.unit))
        if over_time
        else None,
        confidence=confidences({what: rows for what, rows in histograms.items() if any(rows)})
        if numbers.turns
        else None,
        examples=examples,
        explained=len(why),
        rejects=_rejects(labelled),
        validation=_validation(labelled.folder),
        manifests=labelled.manifests,
        models=list(
            dict.fromkeys(f"{each.summary.model_uri} {each.summary.model_version}" for each in labelled.manifests)
        ),
        worst_intents=WORST_INTENTS,
        folder=labelled.folder,
        resamples=RESAMPLES,
        version=importlib.metadata.version("faultline"),
        made=dt.datetime.now(dt.UTC),
    )


class _Reject(NamedTuple):
    """What the page says of one reason for rejection: how many, and the first."""

    reason: str
    rows: int
    source: str
    position: int
    message: str


def _rejects(labelled: Labelled) -> list[_Reject]:
    rows = labelled.connection.execute(
        "SELECT reason, count(*) AS rows, unnest(min_by((source, position, message), (source, position))) "
        "FROM rejected GROUP BY reason ORDER BY rows DESC, reason"
    ).fetchall()
    return [_Reject(*row) for row in rows]


class _Check(Struct):
    """What `validation.json` has on one expectation, as far as the page shows it."""

    success: bool
    table: str
    column: str
    expectation: str
    unexpected_count: int
    examples: list[str]
    error: str | None


class _Validation(Struct):
    """`validation.json`, as `pipelines.validation` writes it."""

    rows: dict[str, int]
    expectations: list[_Check]

    @property
    def failed(self) -> list[_Check]:
        return [each for each in self.expectations if not each.success]

    @property
    def passed(self) -> int:
        return len(self.expectations) - len(self.failed)


def _validation(folder: str) -> _Validation | None:
    """None where the folder has none."""
    path = storage.join(folder, VALIDATION_JSON)
    try:
        return storage.read_json(path, _Validation)
    except OSError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not as faultline label writes it ({error}): label the input again.") from None


def _metrics(numbers: Numbers, compared: Changes | None) -> dict[str, float]:
    """What goes to MLflow: shares with their intervals, counts, and differences from the baseline."""
    rates = {
        "defect_rate": numbers.failed,
        "sure_defect_rate": numbers.sure_failed,
        "goal_success_rate": numbers.reached,
        "dialogue_success_rate": numbers.succeeded,
        **{f"failure_point/{point}": of for point, of in numbers.points.items()},
        **{f"abstained/{label}": of for label, of in numbers.abstained.items()},
    }
    metrics: dict[str, float] = {
        "dialogues": numbers.dialogues,
        "turns": numbers.turns,
        "goals": numbers.goals,
    }
    for name, of in rates.items():
        if of.whole:
            metrics |= {name: of.value, f"{name}/low": of.low, f"{name}/high": of.high}
    for change in compared.headline if compared else ():
        metrics |= {
            f"difference/{change.of.measure}": change.of.difference,
            f"difference/{change.of.measure}/adjusted_p_value": change.of.adjusted_p_value,
        }
    return metrics


def _whole_number(text: str) -> int:
    """For argparse: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _parser() -> OptionParser:
    parser = OptionParser("faultline report", "Makes a page of a labelled output: one HTML file that needs no network.")
    add_option = parser.add_argument
    add_option("--labels", required=True, metavar="DIR", help="the --output folder of faultline label")
    add_option(
        "--baseline",
        metavar="DIR",
        help="another such folder, e.g. last week's: the page says what changed since, and whether it is more than "
        "noise (default: none)",
    )
    add_option(
        "--output", metavar="FILE", help="the page, a local file (default: report.html in the folder of the labels)"
    )
    add_option("--title", metavar="TEXT", help="the page's heading (default: Faultline report)")
    add_option("--note", metavar="TEXT", help="a line under the heading, e.g. that the logs are synthetic")
    add_option(
        "--dialogues",
        type=_whole_number,
        default=500,
        metavar="N",
        help="failing dialogues that the page holds at most, with what was said; 0: none (default: %(default)s)",
    )
    add_option(
        "--explain",
        type=_whole_number,
        default=25,
        metavar="N",
        help="of how many of these the page says what moved the model; it takes the run's model and about half a "
        "second each; 0: none (default: %(default)s)",
    )
    add_option(
        "--mlflow-tracking-uri",
        metavar="URI",
        help="where the page is logged, and where a model models:/… is registered (default: a SQLite file mlflow.db "
        "in the folder of the labels)",
    )
    add_option(
        "--experiment", default="faultline-report", metavar="NAME", help="MLflow experiment (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    from pipelines.cli import main

    sys.exit(main(["report", *sys.argv[1:]]))
