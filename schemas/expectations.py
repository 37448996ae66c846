"""What each table must satisfy, as Great Expectations suites: the incoming logs and every output table.

What the Arrow schemas say is derived from them: columns and their order, types, not-null, enums, ranges of
probabilities. Only what a schema cannot say is written here.

Great Expectations looks at flat columns, so a table is checked as several *frames*:

- `<table>.parts`, a row a part file: `columns`, their names in order, and under each name the Arrow type that
  the file has for it (`parts_frame`). The rows of a part that fails here are not looked at.
- `<table>`, a row a row: a struct becomes `struct.member`, a list becomes `list.length`, and a check over
  several columns has a helper column that is named after the column it speaks of (`_turns_helpers`, …).
- `<table>.<list>`, a row an element of that list, beside the columns that name its row.
- `totals`, one row for a run: counts that must agree between the tables.

Every expectation is one of rows, so that the counts of several batches can be added up. What holds between
rows (uniqueness) is therefore checked within a batch only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from great_expectations import ExpectationSuite

from schemas.labels import TABLES
from schemas.log import TURN_LIMIT, FailurePoint
from schemas.profile import LOGS_SCHEMA
from schemas.rejects import RAW_LIMIT

SCHEMAS: dict[str, pa.Schema] = {"logs": LOGS_SCHEMA, **TABLES}
"""Every table that is validated: the profile of the incoming logs, and the output."""

TOTALS = "totals"

_TOLERANCE = 1e-3
_TIE = 1e-6
_EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_CLOCK_AHEAD = dt.timedelta(days=2)
_TIMES_MOSTLY = 0.5


def key_columns(frame: str) -> list[str]:
    """The columns that name an offending row of a frame in a report."""
    if frame.endswith(".parts"):
        return ["part"]
    if frame == TOTALS:
        return []
    return ["source", "position"] if frame == "rejected" else ["dialogue_id"]


def parts_frame(name: str, schemas: Mapping[str, pa.Schema | None]) -> pd.DataFrame:
    """The frame `<name>.parts` of these part files by path; None stands for a file that cannot be read."""
    rows: list[dict[str, str]] = []
    for part, schema in schemas.items():
        found = {field.name: _type_of(field) for field in schema or ()}
        rows.append({"part": part} | found | ({"columns": ", ".join(found)} if found else {}))
    return pd.DataFrame(rows, columns=["part", "columns", *SCHEMAS[name].names], dtype=object)


def frames(name: str, table: pa.Table) -> dict[str, pd.DataFrame]:
    """The frames of rows of the table called `name`: of the rows, and of the elements of each list."""
    lists = [field.name for field in table.schema if pa.types.is_list(field.type)]
    rows = table.drop_columns(lists)
    elements = {}
    for column in lists:
        values = table[column].combine_chunks()
        rows = rows.append_column(f"{column}.length", pc.list_value_length(values))
        keys = table.select(key_columns(name)).take(pc.list_parent_indices(values))
        elements[f"{name}.{column}"] = keys.append_column(column, pc.list_flatten(values)).flatten().to_pandas()
    frame = rows.flatten().to_pandas()
    if name in _HELPERS:
        frame = frame.assign(**_HELPERS[name](frame, table))
    return {name: frame, **elements}


def totals(of_table: Mapping[str, pd.DataFrame]) -> dict[str, int]:
    """What the frames of one table add to the row of `totals`, by column."""
    added = {}
    if "turns" in of_table:
        turns = of_table["turns"]
        added["turns"] = len(turns)
        added["turns.is_goal_start"] = int(turns["is_goal_start"].sum())
        added["turns.defects"] = int((turns["failure_point"] != FailurePoint.CORRECT).sum())
    if "goals" in of_table:
        added["goals"] = len(of_table["goals"])
        added["goals.turn_indexes"] = len(of_table["goals.turn_indexes"])
    if "dialogues" in of_table:
        for column in ("turn_count", "goal_count", "defect_count"):
            added[f"dialogues.{column}"] = int(of_table["dialogues"][column].sum())
    return added


def suite(frame: str) -> ExpectationSuite:
    """The suite of a frame, by the frame's name."""
    table, _, inner = frame.partition(".")
    if frame == TOTALS:
        expectations = _TOTALS_AGREE
    elif inner == "parts":
        expectations = _of_parts(SCHEMAS[table])
    elif inner:
        field = SCHEMAS[table].field(inner)
        element = field.type.value_field.with_nullable(False).with_metadata(field.metadata)
        expectations = _of_column(inner, element) + _BEYOND_SCHEMA.get(frame, list)()
    else:
        derived = [each for field in SCHEMAS[table] for each in _of_column(field.name, field)]
        expectations = derived + _BEYOND_SCHEMA[table]()
    return ExpectationSuite(frame, expectations=expectations)


def _type_of(field: pa.Field) -> str:
    # Parquet calls the elements of a list `element` where Arrow calls them `item`.
    return f"{field.type}{'' if field.nullable else ' not null'}".replace("list<element:", "list<item:")


def _of_parts(schema: pa.Schema) -> list[gxe.Expectation]:
    expected = {"columns": ", ".join(schema.names)} | {field.name: _type_of(field) for field in schema}
    return [
        each
        for column, value in expected.items()
        for each in (
            gxe.ExpectColumnValuesToNotBeNull(column=column),
            gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[value]),
        )
    ]


def _of_column(name: str, field: pa.Field) -> list[gxe.Expectation]:
    """What the schema says of one column, which its frame calls `name`."""
    metadata = field.metadata or {}
    if pa.types.is_struct(field.type):
        members = [member.with_metadata(metadata | (member.metadata or {})) for member in field.type]
        return [each for member in members for each in _of_column(f"{name}.{member.name}", member)]
    if pa.types.is_list(field.type):
        return [gxe.ExpectColumnValuesToNotBeNull(column=f"{name}.length")]
    expectations: list[gxe.Expectation] = []
    if not field.nullable:
        expectations.append(gxe.ExpectColumnValuesToNotBeNull(column=name))
    if b"enum" in metadata:
        values = metadata[b"enum"].decode().split("|")
        expectations.append(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=values))
    if metadata.get(b"unit", b"").endswith(b"0 to 1"):
        expectations.append(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=1))
    return expectations


def _turns_helpers(frame: pd.DataFrame, _table: pa.Table) -> dict[str, Any]:
    columns = [f"failure_point_probabilities.{point}" for point in FailurePoint]
    probabilities = frame[columns].to_numpy(dtype=np.float64)
    chosen = pd.Index(list(FailurePoint)).get_indexer(pd.Index(frame["failure_point"]))
    shortfall = probabilities[:, 1:].max(axis=1) - probabilities[np.arange(len(frame)), chosen]
    return {
        "failure_point_probabilities.sum": probabilities.sum(axis=1),
        # How much more probable the likeliest failure is than the one chosen; null for none and for an unknown name.
        "failure_point.shortfall": np.where(chosen > 0, shortfall, np.nan),
        "defect_probability.error": np.abs(frame["defect_probability"] - (1 - probabilities[:, 0])),
        "intent_confidence.present_as_intent": frame["intent_confidence"].notna() == frame["intent"].notna(),
    }


def _goals_helpers(frame: pd.DataFrame, table: pa.Table) -> dict[str, Any]:
    failed = frame["failure_point"] != FailurePoint.CORRECT
    pairs = zip(table["failure_turn"].to_pylist(), table["turn_indexes"].to_pylist(), strict=True)
    return {
        "failure_turn.present_as_failure": frame["failure_turn"].notna() == failed,
        "failure_turn.in_goal": [turn is None or turn in turns for turn, turns in pairs],
    }


_HELPERS: dict[str, Callable[[pd.DataFrame, pa.Table], dict[str, Any]]] = {
    "turns": _turns_helpers,
    "goals": _goals_helpers,
}


def _logs() -> list[gxe.Expectation]:
    return [
        gxe.ExpectColumnValueLengthsToBeBetween(column="dialogue_id", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="turn_count", min_value=1, max_value=TURN_LIMIT),
        gxe.ExpectColumnValuesToBeBetween(column="text_chars_max", min_value=0),
        # One device may have a wrong clock; a wrong unit or epoch shows in every dialogue.
        gxe.ExpectColumnValuesToBeBetween(
            column="started_at",
            min_value=_EARLIEST,
            max_value=dt.datetime.now(dt.UTC) + _CLOCK_AHEAD,
            mostly=_TIMES_MOSTLY,
        ),
    ]


def _turns() -> list[gxe.Expectation]:
    return [
        gxe.ExpectColumnValueLengthsToBeBetween(column="dialogue_id", min_value=1),
        gxe.ExpectColumnValueLengthsToBeBetween(column="goal_id", min_value=1),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["dialogue_id", "turn_index"]),
        gxe.ExpectColumnValuesToBeBetween(column="turn_index", min_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="rephrase_of", min_value=0),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="turn_index", column_B="rephrase_of", ignore_row_if="either_value_is_missing"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="failure_point_probabilities.sum", min_value=1 - _TOLERANCE, max_value=1 + _TOLERANCE
        ),
        gxe.ExpectColumnValuesToBeBetween(column="failure_point.shortfall", max_value=_TIE),
        gxe.ExpectColumnValuesToBeBetween(column="defect_probability.error", max_value=_TOLERANCE),
        gxe.ExpectColumnValuesToBeInSet(column="intent_confidence.present_as_intent", value_set=[True]),
    ]


def _slots() -> list[gxe.Expectation]:
    return [
        gxe.ExpectColumnValueLengthsToBeBetween(column="slots.name", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="slots.start", min_value=0),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="slots.end",
            column_B="slots.start",
            or_equal=True,
            ignore_row_if="either_value_is_missing",
        ),
    ]


def _goals() -> list[gxe.Expectation]:
    return [
        gxe.ExpectColumnValueLengthsToBeBetween(column="dialogue_id", min_value=1),
        gxe.ExpectColumnValuesToBeUnique(column="goal_id"),
        gxe.ExpectColumnValuesToBeBetween(column="turn_indexes.length", min_value=1),
        gxe.ExpectColumnValuesToBeInSet(column="failure_turn.present_as_failure", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="failure_turn.in_goal", value_set=[True]),
    ]


def _turn_indexes() -> list[gxe.Expectation]:
    return [
        gxe.ExpectColumnValuesToBeBetween(column="turn_indexes", min_value=0),
        # A turn belongs to one goal.
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["dialogue_id", "turn_indexes"]),
    ]


def _dialogues() -> list[gxe.Expectation]:
    at_most_turns = [
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="turn_count", column_B=column, or_equal=True)
        for column in ("goal_count", "defect_count")
    ]
    return [
        gxe.ExpectColumnValueLengthsToBeBetween(column="dialogue_id", min_value=1),
        gxe.ExpectColumnValuesToBeUnique(column="dialogue_id"),
        gxe.ExpectColumnValuesToBeBetween(column="turn_count", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="goal_count", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="defect_count", min_value=0),
        *at_most_turns,
    ]


def _rejected() -> list[gxe.Expectation]:
    return [
        gxe.ExpectColumnValueLengthsToBeBetween(column="source", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="position", min_value=0),
        gxe.ExpectColumnValueLengthsToBeBetween(column="message", max_value=RAW_LIMIT),
        gxe.ExpectColumnValueLengthsToBeBetween(column="raw", max_value=RAW_LIMIT),
    ]


_BEYOND_SCHEMA: dict[str, Callable[[], list[gxe.Expectation]]] = {
    "logs": _logs,
    "turns": _turns,
    "turns.slots": _slots,
    "goals": _goals,
    "goals.turn_indexes": _turn_indexes,
    "dialogues": _dialogues,
    "rejected": _rejected,
}

_TOTALS_AGREE: list[gxe.Expectation] = [
    gxe.ExpectColumnPairValuesToBeEqual(column_A=one, column_B=other)
    for one, other in (
        ("turns", "dialogues.turn_count"),
        ("goals", "dialogues.goal_count"),
        ("turns.defects", "dialogues.defect_count"),
        ("turns.is_goal_start", "goals"),
        ("goals.turn_indexes", "turns"),
    )
]
