"""The profile of the incoming logs: one row a dialogue, kept while a job runs, for validation only."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from schemas.log import Dialogue

_FRACTION = "fraction, 0 to 1"


def _field(
    name: str, kind: pa.DataType, description: str, *, unit: str | None = None, null: str | None = None
) -> pa.Field:
    metadata = {"description": description, "unit": unit, "null": null}
    return pa.field(name, kind, null is not None, {key: value for key, value in metadata.items() if value is not None})


LOGS_SCHEMA = pa.schema(
    [
        _field("dialogue_id", pa.string(), "the dialogue, as in the input"),
        _field("turn_count", pa.int32(), "turns in it", unit="turns"),
        _field("text_chars_max", pa.int32(), "length of the longest request", unit="characters"),
        _field("asr_share", pa.float32(), "turns with an ASR hypothesis", unit=_FRACTION),
        _field("nlu_share", pa.float32(), "turns with an NLU hypothesis", unit=_FRACTION),
        _field("response_share", pa.float32(), "turns with a response", unit=_FRACTION),
        _field(
            "barge_in_share",
            pa.float32(),
            "barge-ins among the turns that say if there was one",
            unit=_FRACTION,
            null="no turn says",
        ),
        _field("started_at", pa.timestamp("us", tz="UTC"), "start", unit="microseconds", null="not logged"),
        _field("locale", pa.string(), "BCP 47 tag", null="not logged"),
        _field("device", pa.string(), "kind of device or channel", null="not logged"),
    ]
)


def log_profile(dialogue: Dialogue) -> dict[str, Any]:
    """The row of `LOGS_SCHEMA` for a dialogue that `schemas.log.validate` has passed."""
    turns = dialogue.turns
    barge_ins = [turn.barge_in for turn in turns if turn.barge_in is not None]
    return {
        "dialogue_id": dialogue.dialogue_id,
        "turn_count": len(turns),
        "text_chars_max": max(len(turn.text or "") for turn in turns),
        "asr_share": sum(bool(turn.asr) for turn in turns) / len(turns),
        "nlu_share": sum(bool(turn.nlu) for turn in turns) / len(turns),
        "response_share": sum(turn.response is not None for turn in turns) / len(turns),
        "barge_in_share": sum(barge_ins) / len(barge_ins) if barge_ins else None,
        "started_at": dialogue.started_at,
        "locale": dialogue.locale,
        "device": dialogue.device,
    }
