"""`dialogflow-cx`: Dialogflow CX interaction logging, exported to BigQuery; one turn a row.

A row has the columns of the table that Google's *Interaction logging export to BigQuery* prescribes. It comes
as a line of a JSON export, where integers are strings and times end in ` UTC`, or as a row of a Parquet
export. The JSON columns may be objects or text that holds JSON. Inside of them the names are those of the v3
REST API (`DetectIntentResponse`, `QueryResult`, `Match`, `TurnSignals`, `AnswerFeedback`).

- `conversation_name` is the session, `turn_position` the event's id in it, `request_time` the start,
  `language_code` the locale, `request.queryParams.channel` the device.
- The user's words are `response.queryResult.transcript` (speech: the one entry of `asr`; the log has no score
  of it), `text` (typed) or the digits of `dtmf`. A turn that the user started without words (an event, an
  intent trigger, silence) is one in which nothing was heard: an empty entry of `asr`.
- `match` is the first hypothesis: `intent.displayName` (or the event), `confidence`, `parameters` as slots,
  with `currentFlow` as the domain. The other entries of `diagnosticInfo["Alternative Matched Intents"]`
  follow it. Google does not promise the shape of that list: one of another shape is not read.
- `responseMessages` make the response's text, `currentPage` is its action. `status` is `no_match` or
  `no_input` for a match of that type, `failure` where a webhook failed, `handoff` where the turn goes to a
  person.
- `bot_answer_feedback.rating` is the feedback.

`partial_responses` and `derived_data`, whose shape is not documented, are not read.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import EventFormat, RawRecord, as_text
from schemas.log import (
    AsrHypothesis,
    ExplicitFeedback,
    NluHypothesis,
    Response,
    Slot,
    TurnEvent,
    decode,
    validate_event,
)
from schemas.rejects import RecordError, RejectReason, Stage

T = TypeVar("T")

_FEEDBACK = {"THUMBS_UP": ExplicitFeedback.POSITIVE, "THUMBS_DOWN": ExplicitFeedback.NEGATIVE}
_UNMATCHED = {"NO_MATCH": "no_match", "NO_INPUT": "no_input"}
_ALTERNATIVES = "Alternative Matched Intents"


class _Named(Struct, rename="camel"):
    display_name: str | None = None


class _Text(Struct):
    text: list[str] = []


class _AudioText(Struct):
    text: str | None = None


class _Message(Struct, rename="camel"):
    text: _Text | None = None
    output_audio_text: _AudioText | None = None
    live_agent_handoff: dict[str, Any] | None = None


class _Status(Struct):
    code: int = 0


class _Match(Struct, rename="camel"):
    intent: _Named | None = None
    event: str | None = None
    parameters: dict[str, Any] = {}
    match_type: str | None = None
    confidence: float | None = None


class _Dtmf(Struct):
    digits: str | None = None


class _QueryResult(Struct, rename="camel"):
    text: str | None = None
    transcript: str | None = None
    dtmf: _Dtmf | None = None
    match: _Match | None = None
    response_messages: list[_Message] = []
    current_page: _Named | None = None
    current_flow: _Named | None = None
    webhook_statuses: list[_Status] = []
    diagnostic_info: dict[str, Any] = {}


class _Response(Struct, rename="camel"):
    query_result: _QueryResult


class _QueryParams(Struct):
    channel: str | None = None


class _Request(Struct, rename="camel"):
    query_params: _QueryParams | None = None


class _TurnSignals(Struct, rename="camel"):
    failure_reasons: list[str] = []


class _Signals(Struct, rename="camel"):
    turn_signals: _TurnSignals | None = None


class _Feedback(Struct):
    rating: str | None = None


class _Alternative(Struct, rename="pascal"):
    display_name: str
    score: float | None = None


class _Row(Struct):
    conversation_name: Annotated[str, Meta(min_length=1)]
    request_time: Any
    response: _Response | str
    turn_position: int | str | None = None
    language_code: str | None = None
    request: _Request | str | None = None
    conversation_signals: _Signals | str | None = None
    bot_answer_feedback: _Feedback | str | None = None


_DECODER = msgspec.json.Decoder(_Row)


class DialogflowCxFormat(EventFormat):
    """Rows of Dialogflow CX's BigQuery export, one turn each."""

    name = "dialogflow-cx"
    source = "https://cloud.google.com/dialogflow/cx/docs/concept/export-bq"

    def parse_event(self, record: RawRecord) -> TurnEvent:
        return validate_event(_event(decode(record, _Row, _DECODER)))


def _event(row: _Row) -> TurnEvent:
    response = _column(row.response, _Response)
    request = _column(row.request, _Request)
    signals = _column(row.conversation_signals, _Signals)
    feedback = _column(row.bot_answer_feedback, _Feedback)
    if response is None:
        raise RecordError(Stage.VALIDATE, RejectReason.MISSING_FIELD, "`response` is null")
    result = response.query_result
    typed = result.text or (result.dtmf and result.dtmf.digits) or None
    return TurnEvent(
        session_id=row.conversation_name,
        event_id=None if row.turn_position is None else str(row.turn_position),
        started_at=_time(row.request_time),
        locale=row.language_code,
        device=request.query_params.channel if request and request.query_params else None,
        text=result.transcript or typed,
        asr=[] if typed and not result.transcript else [AsrHypothesis(text=result.transcript or "")],
        nlu=_hypotheses(result, result.transcript or typed or ""),
        response=_response(result, signals),
        feedback=_FEEDBACK.get(feedback.rating or "") if feedback else None,
    )


def _column(value: T | str | None, as_type: type[T]) -> T | None:
    """A JSON column: decoded, or still the text that an export made of it."""
    if isinstance(value, str):
        return decode(value.encode(errors="surrogatepass"), as_type) if value not in ("", "null") else None
    return value


def _time(value: Any) -> dt.datetime:
    """A TIMESTAMP: a time, or its text in a JSON export, which ends in ` UTC`."""
    if isinstance(value, dt.datetime):
        return value
    if not isinstance(value, str):
        raise RecordError(Stage.VALIDATE, RejectReason.WRONG_TYPE, f"`request_time` is no time but {value!r}"[:200])
    try:
        return dt.datetime.fromisoformat(value.removesuffix(" UTC"))
    except ValueError:
        raise RecordError(
            Stage.VALIDATE, RejectReason.INVALID_VALUE, f"`request_time` {value!r} is not a time"[:200]
        ) from None


def _hypotheses(result: _QueryResult, text: str) -> list[NluHypothesis]:
    match = result.match
    if match is None:
        return []
    name = (match.intent and match.intent.display_name) or match.event
    matched = NluHypothesis(
        domain=result.current_flow.display_name if result.current_flow else None,
        intent=name,
        slots=[
            Slot.said_in(text, name, as_text(value))
            for name, value in match.parameters.items()
            if name and value is not None
        ],
        score=match.confidence,
    )
    try:
        alternatives = msgspec.convert(result.diagnostic_info.get(_ALTERNATIVES, []), list[_Alternative])
    except msgspec.ValidationError:
        alternatives = []
    return [
        matched,
        *(
            NluHypothesis(intent=each.display_name, score=each.score)
            for each in alternatives
            if each.display_name != name
        ),
    ]


def _response(result: _QueryResult, signals: _Signals | None) -> Response:
    texts: list[str] = []
    for message in result.response_messages:
        if message.text is not None:
            texts += message.text.text
        if message.output_audio_text is not None and message.output_audio_text.text:
            texts.append(message.output_audio_text.text)
    return Response(
        text=" ".join(filter(None, texts)) or None,
        action=result.current_page.display_name if result.current_page else None,
        status=_status(result, signals),
    )


def _status(result: _QueryResult, signals: _Signals | None) -> str | None:
    reasons = signals.turn_signals.failure_reasons if signals and signals.turn_signals else []
    if result.match is not None and result.match.match_type in _UNMATCHED:
        return _UNMATCHED[result.match.match_type]
    if "FAILED_WEBHOOK" in reasons or any(status.code for status in result.webhook_statuses):
        return "failure"
    if any(message.live_agent_handoff is not None for message in result.response_messages):
        return "handoff"
    return None
