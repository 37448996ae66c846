"""`rasa`: the tracker of Rasa 2 and 3, one conversation a record.

A record is a tracker as the HTTP API (`GET /conversations/{conversation_id}/tracker`) and the MongoDB,
DynamoDB and Redis tracker stores have it: `sender_id` and `events`, where an event is `{"event": type,
"timestamp": seconds, …}` (Rasa documentation, *HTTP API*, *Tracker Stores* and *Events*).

- `session_started` splits the tracker. A session becomes a dialogue if the user says something in it.
  `dialogue_id` is the sender, with `#1`, `#2`, … where there is more than one such session.
- `user` starts a turn: `text`, and out of `parse_data` the n-best list of intents: `intent`, which the
  assistant acted on, then the others of `intent_ranking`. The first carries the entities as slots; one with a
  role is `entity.role`. `input_channel` of the first message is the device.
- `bot` and `action` make the turn's response: the texts in order, and the names of the actions joined by `+`,
  without `action_listen` and `action_session_start`, which every turn has. `status` is `no_match` where the
  assistant fell back: intent `nlu_fallback` or action `action_default_fallback`.
- What is said before the first message is the dialogue's `opening`. Other events (slots, forms, reminders)
  are not read.

Rasa logs no speech, entity resolution or feedback: these stay null.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord, as_text
from schemas.log import (
    Dialogue,
    NluHypothesis,
    Position,
    Response,
    Slot,
    Turn,
    decode,
    from_unix,
    validate,
)
from schemas.rejects import RecordError, RejectReason, Stage

_EVERY_TURN = frozenset({"action_listen", "action_session_start"})
_FALLBACK_INTENT = "nlu_fallback"
_FALLBACK_ACTION = "action_default_fallback"


class _Intent(Struct):
    name: str | None = None
    confidence: float | None = None


class _Entity(Struct):
    entity: Annotated[str, Meta(min_length=1)]
    value: Any = None
    start: Position | None = None
    end: Position | None = None
    role: str | None = None
    confidence_entity: float | None = None


class _ParseData(Struct):
    intent: _Intent | None = None
    entities: list[_Entity] = []
    intent_ranking: list[_Intent] = []


class _Event(Struct):
    event: str
    timestamp: float | None = None
    text: str | None = None
    name: str | None = None
    parse_data: _ParseData | None = None
    input_channel: str | None = None
    message_id: str | None = None


class _Tracker(Struct):
    sender_id: Annotated[str, Meta(min_length=1)]
    events: list[_Event]


_DECODER = msgspec.json.Decoder(_Tracker)


class RasaFormat(DialogueFormat):
    """Rasa trackers, one conversation a record."""

    name = "rasa"
    source = "https://rasa.com/docs/reference/primitives/events"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        tracker = decode(record, _Tracker, _DECODER)
        sessions: list[list[_Event]] = [[]]
        for event in tracker.events:
            if event.event == "session_started":
                sessions.append([])
            sessions[-1].append(event)
        spoken = [session for session in sessions if any(event.event == "user" for event in session)]
        if not spoken:
            raise RecordError(Stage.VALIDATE, RejectReason.NO_TURNS, "the tracker has no user message")
        numbers = [""] if len(spoken) == 1 else [f"#{number}" for number in range(1, len(spoken) + 1)]
        return [
            validate(_dialogue(f"{tracker.sender_id}{number}", tracker.sender_id, session))
            for number, session in zip(numbers, spoken, strict=True)
        ]


def _dialogue(dialogue_id: str, sender: str, events: list[_Event]) -> Dialogue:
    turns: list[Turn] = []
    answers: list[list[_Event]] = [[]]
    for event in events:
        if event.event == "user":
            turns.append(_turn(event))
            answers.append([])
        elif event.event in ("bot", "action") and event.name not in _EVERY_TURN:
            answers[-1].append(event)
    for turn, answer in zip(turns, answers[1:], strict=True):
        turn.response = _response(answer) if answer else None
        if turn.response is not None and turn.nlu and turn.nlu[0].intent == _FALLBACK_INTENT:
            turn.response.status = "no_match"
    return Dialogue(
        dialogue_id=dialogue_id,
        turns=turns,
        device=next((event.input_channel for event in events if event.event == "user"), None),
        user_id=sender,
        opening=_response(answers[0]).text,
    )


def _turn(event: _Event) -> Turn:
    turn = Turn(
        text=event.text,
        turn_id=event.message_id,
        started_at=None if event.timestamp is None else from_unix(event.timestamp),
    )
    if event.parse_data is not None:
        intents = {
            intent.name: NluHypothesis(intent=intent.name, score=intent.confidence)
            for intent in [event.parse_data.intent, *event.parse_data.intent_ranking]
            if intent is not None and intent.name
        }
        turn.nlu = list(intents.values())
        if event.parse_data.entities:
            turn.nlu = turn.nlu or [NluHypothesis()]
            turn.nlu[0].slots = [_slot(entity) for entity in event.parse_data.entities]
    return turn


def _slot(entity: _Entity) -> Slot:
    return Slot(
        name=f"{entity.entity}.{entity.role}" if entity.role else entity.entity,
        value=as_text(entity.value),
        start=entity.start,
        end=entity.end,
        score=entity.confidence_entity,
    )


def _response(events: list[_Event]) -> Response:
    actions = [event.name for event in events if event.event == "action"]
    return Response(
        text=" ".join(event.text for event in events if event.event == "bot" and event.text) or None,
        action="+".join(filter(None, actions)) or None,
        status="no_match" if _FALLBACK_ACTION in actions else None,
    )
