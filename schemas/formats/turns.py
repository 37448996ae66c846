"""`turns`: one turn a record, as event logs keep it, in any order.

A record is a `schemas.log.TurnEvent`: the fields of a canonical turn, with the session that it belongs to and
the time at which it started. The job groups them into dialogues.
"""

from __future__ import annotations

import msgspec

from schemas.formats.base import EventFormat, RawRecord
from schemas.log import TurnEvent, decode, validate_event

_DECODER = msgspec.json.Decoder(TurnEvent)


class TurnsFormat(EventFormat):
    """A line of JSON, or a Parquet row, that is a `schemas.log.TurnEvent`."""

    name = "turns"
    source = "`schemas.log.TurnEvent`"

    def parse_event(self, record: RawRecord) -> TurnEvent:
        return validate_event(decode(record, TurnEvent, _DECODER))
