"""Runs the suites of `schemas.expectations` on everything that a run wrote, in bounded memory.

Whole part files are put together until a batch has `BATCH_ROWS` rows, each batch goes through Great
Expectations, and the counts of all batches are added up; `mostly` is applied to the sums. Memory is that of
one batch or of the largest part, whichever is larger: a part is one chunk of the job.

What is found in some of the parts (`examine`) can be added to what is found in others (`conclude`), so several workers
can share the work, as long as all parts of a chunk are one worker's.

A batch of `turns` takes Great Expectations about a third of a second whatever its size, and about 13 microseconds a
turn more (one busy core), which is why small parts are put together. Rows that fail cost some five times that.

Uniqueness is checked within a batch. That finds every duplicate turn and goal of a dialogue, since a
dialogue's rows are in one part. The same dialogue id in parts that fall in different batches is not found
here: the job resolves duplicate ids before it validates.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from encoders.memory import give_back

BATCH_ROWS = 100_000
EXAMPLES = 5
"""Offending rows that a report names for each expectation."""

# Great Expectations keeps its context in a global of the process, and workers may be threads of one.
_ONE_AT_A_TIME = threading.Lock()


@dataclass
class Outcome:
    """One expectation on all rows of one table."""

    frame: str
    """What was looked at, as in `schemas.expectations`: the table, or its parts, or the elements of a list."""
    column: str
    """The column, or several joined by commas; dotted names as in `schemas.expectations`."""
    expectation: str
    arguments: dict[str, Any]
    element_count: int = 0
    missing_count: int = 0
    unexpected_count: int = 0
    examples: list[str] = field(default_factory=list)
    """What names the first offending rows: dialogue ids, part files, or `source:position` of a reject."""
    error: str | None = None
    """Why the expectation could not be evaluated."""

    def __add__(self, other: Outcome) -> Outcome:
        """The same expectation on the rows of both."""
        examples = dict.fromkeys([*self.examples, *other.examples])
        return replace(
            self,
            element_count=self.element_count + other.element_count,
            missing_count=self.missing_count + other.missing_count,
            unexpected_count=self.unexpected_count + other.unexpected_count,
            examples=list(examples)[:EXAMPLES],
            error=self.error or other.error,
        )

    @property
    def table(self) -> str:
        return self.frame.partition(".")[0]

    @property
    def success(self) -> bool:
        if self.error is not None:
            return False
        mostly: float = self.arguments.get("mostly", 1)
        if mostly == 1:
            return self.unexpected_count == 0
        # Where there are few, one alone is a large share of them, and yet the exception that is allowed.
        return self.unexpected_count <= max((1 - mostly) * (self.element_count - self.missing_count), 1)


@dataclass(frozen=True)
class Findings:
    """What was found in some of the parts."""

    rows: dict[str, int]
    """Rows that were read, by table."""
    outcomes: list[Outcome]
    totals: dict[str, int]
    """What must agree between the tables, once all is added up; see `schemas.expectations.totals`."""


@dataclass(frozen=True)
class ValidationReport:
    """What came of every expectation, and how many rows of each table were read."""

    rows: dict[str, int]
    outcomes: list[Outcome]

    @property
    def success(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.success]

    def describe_failure(self) -> str:
        """One sentence on the first failure and the number of others. Raises `ValueError` on success."""
        if self.success:
            raise ValueError("Validation succeeded: there is no failure to describe.")
        first, *others = self.failures
        where = f", e.g. {', '.join(first.examples)}" if first.examples else ""
        counted = f"{first.unexpected_count:,} of {first.element_count:,} rows{where}"
        more = f"; {len(others):,} more failed" if others else ""
        return (
            f"Validation failed: {first.table}, column {first.column}: {first.expectation} does not hold "
            f"({first.error or counted}){more}."
        )

    def to_json(self) -> str:
        """The report as indented JSON."""
        report = {
            "success": self.success,
            "rows": self.rows,
            "expectations": [
                {"success": outcome.success, "table": outcome.table} | asdict(outcome)
                for outcome in sorted(self.outcomes, key=lambda each: each.success)
            ],
        }
        return json.dumps(report, indent=2, default=str) + "\n"


def validate_parts(parts: Mapping[str, Sequence[str]], *, batch_rows: int = BATCH_ROWS) -> ValidationReport:
    """The report on all rows of these Parquet files, which are given by table name; see `examine`."""
    return conclude([examine(parts, batch_rows=batch_rows)])


def examine(parts: Mapping[str, Sequence[str]], *, batch_rows: int = BATCH_ROWS) -> Findings:
    """What the suites say of all rows of these Parquet files, which are given by table name.

    Tables are those of `schemas.expectations.SCHEMAS`; paths are anything that Beam's FileSystems read.
    A file that cannot be read, or whose columns or types are wrong, is a failed expectation.
    """
    # Imported here: it takes three seconds, and workers import this module along with the launcher.
    from schemas import expectations

    rows: dict[str, int] = {}
    totals: Counter[str] = Counter()
    sums: dict[tuple[str, str, str], Outcome] = {}
    with _ONE_AT_A_TIME:
        suites = _Suites()
        for name, paths in parts.items():
            schemas: dict[str, pa.Schema | None] = {}
            rows[name] = 0
            for batch in _batches(_good_parts(paths, expectations.SCHEMAS[name], schemas), batch_rows):
                rows[name] += batch.num_rows
                frames = expectations.frames(name, batch)
                for frame_name, frame in frames.items():
                    _add(sums, suites.check(frame_name, frame))
                totals.update(expectations.totals(frames))
                give_back()
            _add(sums, suites.check(f"{name}.parts", expectations.parts_frame(name, schemas)))
    return Findings(rows, list(sums.values()), dict(totals))


def conclude(findings: Iterable[Findings]) -> ValidationReport:
    """The report on all that was examined.

    Counts are compared between `turns`, `goals` and `dialogues` where all three were given.
    """
    from schemas import expectations

    rows: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    sums: dict[tuple[str, str, str], Outcome] = {}
    for each in findings:
        rows.update(each.rows)
        totals.update(each.totals)
        _add(sums, each.outcomes)
    if rows.keys() >= {"turns", "goals", "dialogues"} and totals:
        with _ONE_AT_A_TIME:
            _add(sums, _Suites().check(expectations.TOTALS, pd.DataFrame([totals])))
    return ValidationReport(dict(rows), list(sums.values()))


def _add(sums: dict[tuple[str, str, str], Outcome], outcomes: Iterable[Outcome]) -> None:
    for each in outcomes:
        key = (each.frame, each.column, each.expectation)
        sums[key] = sums[key] + each if key in sums else each


def _good_parts(paths: Sequence[str], expected: pa.Schema, schemas: dict[str, pa.Schema | None]) -> Iterator[pa.Table]:
    """The parts that have the expected schema; what schema each part has is put in `schemas`."""
    for path in paths:
        schemas[path] = None
        try:
            with FileSystems.open(path) as file:
                table = pq.ParquetFile(file).read()
        except (BeamIOError, OSError, pa.ArrowException):
            continue
        schemas[path] = table.schema
        if table.schema == expected:
            yield table


def _batches(parts: Iterable[pa.Table], batch_rows: int) -> Iterator[pa.Table]:
    """The same rows in the same order: whole parts together, up to `batch_rows` where a part allows it."""
    held: list[pa.Table] = []
    count = 0
    for part in parts:
        if held and count + part.num_rows > batch_rows:
            yield pa.concat_tables(held)
            held, count = [], 0
        held.append(part)
        count += part.num_rows
    if held:
        yield pa.concat_tables(held)


class _Suites:
    """Great Expectations, with a context of its own."""

    def __init__(self) -> None:
        # Read when the context is made: nothing is sent anywhere.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        import great_expectations as gx

        # It sets its own level to INFO and reports a temporary folder for each context.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        asset = context.data_sources.add_pandas("parts").add_dataframe_asset("rows")
        self._batch = asset.add_batch_definition_whole_dataframe("all")
        self._suites: dict[str, Any] = {}

    def check(self, name: str, frame: pd.DataFrame) -> list[Outcome]:
        """The outcomes of the frame's suite; none of a frame without rows."""
        from schemas import expectations

        if frame.empty:
            return []
        if name not in self._suites:
            self._suites[name] = expectations.suite(name)
        keys = expectations.key_columns(name)
        result_format = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": EXAMPLES,
            "unexpected_index_column_names": keys,
        }
        batch = self._batch.get_batch({"dataframe": frame})
        return [
            _outcome(name, each, keys)
            for each in batch.validate(self._suites[name], result_format=result_format).results
        ]


def _outcome(frame: str, found: Any, keys: Sequence[str]) -> Outcome:
    config = found.expectation_config
    # As JSON has them: what a worker found comes to the launcher so.
    arguments: dict[str, Any] = msgspec.to_builtins(
        {key: value for key, value in config.kwargs.items() if key != "batch_id"}
    )
    columns = [arguments[key] for key in ("column", "column_A", "column_B") if key in arguments]
    outcome = Outcome(frame, ", ".join(columns + arguments.get("column_list", [])), config.type, arguments)
    if "unexpected_count" not in found.result:
        return replace(outcome, error=_first_message(found.exception_info))
    rows = found.result.get("partial_unexpected_index_list", [])
    return replace(
        outcome,
        element_count=found.result["element_count"],
        missing_count=found.result.get("missing_count", 0),
        unexpected_count=found.result["unexpected_count"],
        examples=list(dict.fromkeys(":".join(str(row[key]) for key in keys) for row in rows)),
    )


def _first_message(exception_info: Mapping[str, Any]) -> str:
    """Great Expectations gives one exception, or one for each metric that failed."""
    if "exception_message" in exception_info:
        return str(exception_info["exception_message"])
    return str(next(iter(exception_info.values()))["exception_message"])
