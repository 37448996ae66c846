"""`dstc2`: the second Dialog State Tracking Challenge, one call a line.

A line is `{"session", "log"[, "label"]}`, where `log` and `label` are the call's `log.json` and `label.json`
as described in Henderson, Thomson and Williams, *Dialog State Tracking Challenge 2 & 3 Handbook* (2013). An
optional `failure_points` holds one failure point a turn.

In the log a turn is a system prompt followed by what the user said. Here a turn is a request followed by the
response, so the response to request i is the prompt of turn i + 1; the first prompt is the dialogue's
`opening`. `aborted` on prompt i + 1 says that the user barged in on the response to request i.

Acts become intents and slots: `inform(food=thai)` is slot food=thai, `request(phone)` is slot
requested=phone; acts are sorted and joined by `+` to the intent; thankyou, ack, hello and null are left out.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord, as_text
from schemas.log import (
    AsrHypothesis,
    Dialogue,
    DialogueAnnotation,
    DialogueFeedback,
    FailurePoint,
    GoalAnnotation,
    NluHypothesis,
    Response,
    Slot,
    Turn,
    TurnAnnotation,
    decode,
    validate,
)
from schemas.rejects import RecordError, RejectReason, Stage

DOMAIN = "restaurant"
NO_INTENT = "none"
_UNCOUNTED = frozenset({"thankyou", "ack", "hello", "null"})
_GOAL = "0"


class _Act(Struct):
    act: str
    slots: list[list[Any]] = []


class _AsrHyp(Struct, rename={"text": "asr-hyp"}):
    text: str
    score: float | None = None


class _SluHyp(Struct, rename={"acts": "slu-hyp"}):
    acts: list[_Act]
    score: float | None = None


class _Live(Struct, rename="kebab"):
    asr_hyps: list[_AsrHyp] = []
    slu_hyps: list[_SluHyp] = []


class _Input(Struct, rename="kebab"):
    live: _Live
    start_time: float | None = None
    end_time: float | None = None


class _Output(Struct, rename="kebab"):
    transcript: str | None = None
    dialog_acts: list[_Act] = []
    aborted: bool | None = None


class _LogTurn(Struct):
    output: _Output
    input: _Input


class _Log(Struct, rename="kebab"):
    turns: Annotated[list[_LogTurn], Meta(min_length=1)]
    session_id: str | None = None
    session_date: str | None = None
    session_time: str | None = None
    caller_id: str | None = None


class _Semantics(Struct):
    json: list[_Act] = []


class _LabelTurn(Struct):
    transcription: str | None = None
    semantics: _Semantics | None = None


class _Feedback(Struct):
    success: bool | None = None


class _Task(Struct):
    feedback: _Feedback | None = None


class _Label(Struct, rename="kebab"):
    turns: list[_LabelTurn]
    task_information: _Task | None = None


class _Call(Struct):
    session: str
    log: _Log
    label: _Label | None = None
    failure_points: list[FailurePoint] | None = None


_DECODER = msgspec.json.Decoder(_Call)


class Dstc2Format(DialogueFormat):
    """DSTC2 calls, one a line."""

    name = "dstc2"
    source = "Henderson, Thomson and Williams, Dialog State Tracking Challenge 2 & 3 Handbook, 2013"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Call, _DECODER)))]


def intent_and_slots(acts: list[_Act], text: str) -> tuple[str, list[Slot]]:
    """The intent and slots that the acts stand for; a slot that is said in `text` gets its span."""
    counted = [act for act in acts if act.act not in _UNCOUNTED]
    slots: dict[tuple[str, str], Slot] = {}
    for act in counted:
        for pair in act.slots:
            if len(pair) != 2:
                message = f"a slot of act {act.act} has {len(pair)} members: a pair has two"
                raise RecordError(Stage.PARSE, RejectReason.WRONG_TYPE, message)
            name, value = ("requested" if act.act == "request" else as_text(pair[0])), as_text(pair[1])
            slots[name, value] = Slot.said_in(text, name, value)
    return "+".join(sorted({act.act for act in counted})) or NO_INTENT, list(slots.values())


def _dialogue(call: _Call) -> Dialogue:
    turns = call.log.turns
    for name, found in (
        ("label", len(call.label.turns) if call.label else None),
        ("failure_points", len(call.failure_points) if call.failure_points is not None else None),
    ):
        if found is not None and found != len(turns):
            raise RecordError(
                Stage.VALIDATE,
                RejectReason.INVALID_VALUE,
                f"{name} has {found} turns, the log has {len(turns)}",
            )
    started_at = _time(call.log.session_date, call.log.session_time)
    success = call.label and call.label.task_information and call.label.task_information.feedback
    return Dialogue(
        dialogue_id=call.session,
        turns=[_turn(call, index, started_at) for index in range(len(turns))],
        started_at=started_at,
        locale="en",
        device="phone",
        user_id=call.log.caller_id,
        opening=turns[0].output.transcript,
        feedback=DialogueFeedback(success=success.success) if success else None,
        annotation=DialogueAnnotation(
            success=success.success, goals=[GoalAnnotation(goal_id=_GOAL, success=success.success)]
        )
        if success
        else None,
    )


def _turn(call: _Call, index: int, started_at: dt.datetime | None) -> Turn:
    this = call.log.turns[index].input
    after = call.log.turns[index + 1].output if index + 1 < len(call.log.turns) else None
    asr = [AsrHypothesis(text=each.text, score=each.score) for each in this.live.asr_hyps]
    text = asr[0].text if asr else ""
    nlu = []
    for hypothesis in this.live.slu_hyps:
        intent, slots = intent_and_slots(hypothesis.acts, text)
        nlu.append(NluHypothesis(domain=DOMAIN, intent=intent, slots=slots, score=hypothesis.score))
    return Turn(
        # A recogniser that heard nothing leaves an empty n-best list: an empty hypothesis, not a missing text.
        asr=asr or [AsrHypothesis(text="")],
        nlu=nlu,
        started_at=_offset(started_at, this.start_time),
        ended_at=_offset(started_at, this.end_time),
        response=_response(after) if after else None,
        barge_in=after.aborted if after else None,
        annotation=_annotation(call, index, text),
    )


def _response(output: _Output) -> Response:
    acts = "+".join(sorted({act.act for act in output.dialog_acts}))
    return Response(text=output.transcript, action=acts or None)


def _annotation(call: _Call, index: int, text: str) -> TurnAnnotation | None:
    if call.label is None and call.failure_points is None:
        return None
    annotation = TurnAnnotation(goal_id=_GOAL)
    if call.failure_points is not None:
        annotation.failure_point = call.failure_points[index]
    if call.label is not None:
        label = call.label.turns[index]
        annotation.transcript = label.transcription
        if label.semantics is not None:
            annotation.intent, annotation.slots = intent_and_slots(label.semantics.json, text)
    return annotation


def _time(date: str | None, time: str | None) -> dt.datetime | None:
    if date is None or time is None:
        return None
    try:
        return dt.datetime.fromisoformat(f"{date}T{time}").replace(tzinfo=dt.UTC)
    except ValueError:
        raise RecordError(Stage.PARSE, RejectReason.INVALID_VALUE, f"{date} {time} is not a date and a time") from None


def _offset(start: dt.datetime | None, seconds: float | None) -> dt.datetime | None:
    if start is None or seconds is None:
        return None
    try:
        return start + dt.timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise RecordError(Stage.PARSE, RejectReason.INVALID_VALUE, f"{seconds} s is not a time in a call") from None
