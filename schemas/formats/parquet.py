"""`parquet`: the canonical dialogue log as rows of a Parquet file, columns as in `schemas.log.ARROW_SCHEMA`."""

from __future__ import annotations

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import Dialogue, decode, validate


class ParquetFormat(DialogueFormat):
    """A Parquet row that is a `schemas.log.Dialogue`."""

    name = "parquet"
    source = "`schemas.log.ARROW_SCHEMA`, whose fields carry their units and the meaning of null"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(decode(record, Dialogue))]
