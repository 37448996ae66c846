"""`jsonl` and `parquet`: the canonical dialogue log of `schemas.log`, one dialogue a line or row."""

from __future__ import annotations

import msgspec

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import Dialogue, decode, validate

_DECODER = msgspec.json.Decoder(Dialogue)


class CanonicalFormat(DialogueFormat):
    """A line of JSON (or an element of a JSON array) that is a `schemas.log.Dialogue`."""

    name = "jsonl"
    source = "`faultline schema` prints its JSON Schema"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(decode(record, Dialogue, _DECODER))]
