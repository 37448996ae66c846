"""`lex`: Amazon Lex V2 conversation logs, one turn a line.

A line is one text log entry, as *Viewing text logs in Amazon CloudWatch Logs from Lex V2* (Lex V2 Developer
Guide) lists its fields. An export of CloudWatch Logs puts the time of ingestion before each entry: take that
off first.

- `sessionId` is the session, `requestId` the event's id, `timestamp` the start, `bot.localeId` the locale
  (`en_US` becomes `en-US`), the request attribute `x-amz-lex:channels:platform` the device.
- `inputTranscript` is the text. Of speech, `transcriptions` is the n-best list. An entry without any input
  from the user (silence, a timeout, an update while something is fulfilled) is one in which nothing was
  heard: an empty entry of `asr`. Typed input that is empty is rejected.
- `interpretations` are the hypotheses. Their slots last for the session: those whose `originalValue` is said
  in this request are its slots; of the first hypothesis, `interpretedValue` and `resolvedValues` are their
  entity resolutions, if the slot resolves to anything. A slot of shape List is one slot for each value.
- `messages` make the response's text, SSML without its tags. `dialogAction` is the action, with the slot it
  asks for (`ElicitSlot:City`). `status` is `no_match` for a `missedUtterance`, `no_input` where nothing was
  heard, `success` or `failure` where the intent's state is Fulfilled or Failed, and null while it goes on.

`bargeIn` says that the request interrupted the response *before* it, which is another entry: it is not read.
Lex logs no feedback.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from schemas.formats.base import EventFormat, RawRecord
from schemas.log import (
    AsrHypothesis,
    EntityResolution,
    NluHypothesis,
    Response,
    Slot,
    TurnEvent,
    decode,
    validate_event,
)
from schemas.rejects import RecordError, RejectReason, Stage

_TAG = re.compile(r"<[^<>]*>")
_OUTCOMES = {"Fulfilled": "success", "Failed": "failure"}
# Lex writes confidences as numbers and as text, depending on its version.
_Confidence = float | str | None


class _Bot(Struct, rename="camel"):
    locale_id: str | None = None


class _Message(Struct, rename="camel"):
    content: str | None = None
    content_type: str | None = None


class _Value(Struct, rename="camel"):
    original_value: str | None = None
    interpreted_value: str | None = None
    resolved_values: list[str] = []


class _Slot(Struct):
    value: _Value | None = None
    values: list[_Slot | None] = []


class _Intent(Struct):
    name: str | None = None
    slots: dict[str, _Slot | None] = {}
    state: str | None = None


class _Interpretation(Struct, rename="camel"):
    intent: _Intent | None = None
    nlu_confidence: _Confidence = None


class _Transcription(Struct, rename="camel"):
    transcription: str
    transcription_confidence: _Confidence = None


class _DialogAction(Struct, rename="camel"):
    type: str | None = None
    slot_to_elicit: str | None = None


class _SessionState(Struct, rename="camel"):
    dialog_action: _DialogAction | None = None
    intent: _Intent | None = None


class _RequestAttributes(Struct):
    platform: str | None = field(name="x-amz-lex:channels:platform", default=None)


class _Entry(Struct, rename="camel"):
    session_id: Annotated[str, Meta(min_length=1)]
    timestamp: dt.datetime
    request_id: str | None = None
    bot: _Bot | None = None
    input_transcript: str | None = None
    input_mode: str | None = None
    response_reason: str | None = None
    transcriptions: list[_Transcription] = []
    interpretations: list[_Interpretation] = []
    session_state: _SessionState | None = None
    messages: list[_Message] = []
    missed_utterance: bool | None = None
    request_attributes: _RequestAttributes | None = None


_DECODER = msgspec.json.Decoder(_Entry)


class LexFormat(EventFormat):
    """Entries of Lex V2's text logs, one turn each."""

    name = "lex"
    source = "https://docs.aws.amazon.com/lexv2/latest/dg/conversation-logs-cw.html"

    def parse_event(self, record: RawRecord) -> TurnEvent:
        return validate_event(_event(decode(record, _Entry, _DECODER)))


def _event(entry: _Entry) -> TurnEvent:
    asr = _asr(entry)
    text = entry.input_transcript or (asr[0].text if asr else "")
    first = entry.interpretations[0] if entry.interpretations else None
    return TurnEvent(
        session_id=entry.session_id,
        event_id=entry.request_id,
        started_at=entry.timestamp,
        locale=entry.bot.locale_id.replace("_", "-") if entry.bot and entry.bot.locale_id else None,
        device=entry.request_attributes.platform if entry.request_attributes else None,
        text=text,
        asr=asr,
        nlu=[_hypothesis(interpretation, text) for interpretation in entry.interpretations],
        entities=[
            EntityResolution(slot=name, value=value.original_value, name=resolved)
            for name, value, _ in _said(first, text)
            if value.resolved_values
            for resolved in dict.fromkeys([value.interpreted_value, *value.resolved_values])
            if resolved is not None
        ],
        response=_response(entry, text),
    )


def _asr(entry: _Entry) -> list[AsrHypothesis]:
    if entry.input_mode == "Speech" and entry.transcriptions:
        return [
            AsrHypothesis(text=each.transcription, score=_score(each.transcription_confidence))
            for each in entry.transcriptions
        ]
    answers_user = entry.response_reason in (None, "UtteranceResponse")
    if entry.input_mode == "Speech" or (not entry.input_transcript and not answers_user):
        return [AsrHypothesis(text=entry.input_transcript or "")]
    return []


def _hypothesis(interpretation: _Interpretation, text: str) -> NluHypothesis:
    return NluHypothesis(
        intent=interpretation.intent.name if interpretation.intent else None,
        slots=[slot for _, _, slot in _said(interpretation, text)],
        score=_score(interpretation.nlu_confidence),
    )


def _said(interpretation: _Interpretation | None, text: str) -> Iterator[tuple[str, _Value, Slot]]:
    """The slots that this request, and not an earlier one, gave a value."""
    slots = interpretation.intent.slots if interpretation and interpretation.intent else {}
    for name, slot in slots.items():
        if not name or slot is None:
            continue
        for each in [one for one in slot.values if one is not None] or [slot]:
            if each.value is not None and each.value.original_value:
                found = Slot.said_in(text, name, each.value.original_value)
                if found.start is not None:
                    yield name, each.value, found


def _score(confidence: _Confidence) -> float | None:
    try:
        return None if confidence is None else float(confidence)
    except ValueError:
        raise RecordError(
            Stage.VALIDATE, RejectReason.WRONG_TYPE, f"confidence {confidence!r} is not a number"[:200]
        ) from None


def _response(entry: _Entry, text: str) -> Response:
    texts = [
        _TAG.sub("", message.content) if message.content_type == "SSML" else message.content
        for message in entry.messages
        if message.content
    ]
    dialog_action = entry.session_state.dialog_action if entry.session_state else None
    action = (dialog_action.type, dialog_action.slot_to_elicit) if dialog_action else ()
    return Response(
        text=" ".join(texts) or None,
        action=":".join(filter(None, action)) or None,
        status=_status(entry, text),
    )


def _status(entry: _Entry, text: str) -> str | None:
    if not text.strip():
        return "no_input"
    if entry.missed_utterance:
        return "no_match"
    intent = entry.session_state.intent if entry.session_state else None
    return _OUTCOMES.get(intent.state or "") if intent else None
