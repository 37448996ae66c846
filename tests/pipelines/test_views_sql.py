"""The views of docs/ for BigQuery and Spark SQL: they parse there, and give the rows of `faultline query`.

What is executed is their translation into DuckDB, over the files of a real output; the statements that name files on
an object store are put in place by hand.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from sqlglot import exp

from pipelines.labelled import VIEWS, Labelled
from pipelines.publish import published
from schemas.formats import DialogueFormat, get_format
from schemas.log import ARROW_SCHEMA

DOCS = Path(__file__).parents[2] / "docs"
FILES = {"bigquery": "views.sql", "spark": "views_spark.sql"}
PATH_OF = {"bigquery": "filename AS _FILE_NAME", "spark": "{'file_path': filename} AS _metadata"}


@pytest.mark.parametrize("dialect", FILES)
def test_the_views_give_the_rows_of_faultline_query(dialect: str, labelled_output: Any, tmp_path: Path) -> None:
    dataset = write_canonical_logs(labelled_output, tmp_path / "logs.parquet")
    text = (DOCS / FILES[dialect]).read_text(encoding="utf-8").replace("DATASET", dataset)
    statements = sqlglot.parse(text, read=dialect, error_level=sqlglot.ErrorLevel.RAISE)
    with duckdb.connect() as database, Labelled.open(str(labelled_output.labels)) as labelled:
        database.execute("SET TimeZone = 'UTC'; CREATE SCHEMA labels")
        # Spark's function, which has no counterpart that is known to the translator.
        database.execute("CREATE MACRO get(list, index) AS list[index + 1]")
        for statement in statements:
            assert isinstance(statement, exp.Create)
            if statement.kind == "VIEW":
                database.execute(statement.sql("duckdb"))
                continue
            table = statement.this.name.removesuffix("_files")
            files = tmp_path / "logs.parquet" if table == "logs" else f"{labelled_output.labels}/{table}/**/*.parquet"
            database.execute(
                f"CREATE VIEW labels.{table}_files AS SELECT * EXCLUDE (filename), {PATH_OF[dialect]} "
                f"FROM read_parquet('{files}', filename = true, hive_partitioning = false)"
            )
        for name, schema in VIEWS.items():
            rows = f"SELECT {', '.join(schema.names)} FROM {{}} WHERE dataset = '{dataset}' ORDER BY ALL"
            expected = labelled.connection.execute(rows.format(name)).fetchall()
            assert expected
            assert database.execute(rows.format(f"labels.{name}")).fetchall() == expected
            whole = "SELECT dataset, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
            assert (
                database.execute(whole.format(f"labels.{name}")).fetchall()
                == labelled.connection.execute(whole.format(name)).fetchall()
            )


def write_canonical_logs(output: Any, path: Path) -> str:
    """The labelled dialogues of the calls, as canonical Parquet; gives the name of their dataset."""
    jsonl = get_format("jsonl")
    assert isinstance(jsonl, DialogueFormat)
    lines = [(output.logs / name).read_bytes().splitlines() for name in ("calls-1.jsonl", "calls-2.jsonl")]
    rows = []
    for line in (lines[0][0], lines[1][1]):
        row = msgspec.to_builtins(jsonl.parse(line)[0], builtin_types=(dt.datetime,))
        empty = {"asr": [], "nlu": [], "entities": []}
        for turn in row["turns"]:
            turn |= {**empty, **turn, "nlu": [{"slots": [], **each} for each in turn.get("nlu", [])]}
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA), path)
    [dataset] = [each.dataset for each in published(str(output.labels)) if each.summary.input_format == "jsonl"]
    return dataset
