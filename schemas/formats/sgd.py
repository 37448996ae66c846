"""`sgd`: the Schema-Guided Dialogue dataset, one dialogue a record.

A record is one element of a `dialogues_*.json`: `{"dialogue_id", "services", "turns"}`, as the dataset's
README and Rastogi et al., *Towards Scalable Multi-Domain Conversational Agents* (AAAI 2020) describe it.

A turn is a USER utterance with the SYSTEM utterance that follows it; a USER utterance that nothing follows
has no response, and what the system says before the first is the dialogue's `opening`.

The frames are written by people and are all annotation: `nlu` stays empty, since the assistant has no such log.
`services`, which the dataset gives every model as input, are those that could be reached in the dialogue.

- Goals follow the active intents, NONE aside. An active intent that the previous user turn did not have opens
  a goal; it keeps that goal while it stays active, and opens another when it comes back. A turn on which no
  intent is active belongs to the goal before it. Of two active intents on a turn the one that opens a goal
  counts, else the first.
- A turn's intent is that of its goal's service, or NONE where no intent is active on the turn. Its domain is that
  service; where no intent is active, the service of the turn's first frame.
- Slots are the spans of the user's frames. Slots without a span (the categorical ones) are left out.
- A goal's success is the last NOTIFY_SUCCESS or NOTIFY_FAILURE in answer to its turns, null without one. A
  dialogue has failed where one of its goals has, and succeeded where all have.

`response.action` is the system's acts, sorted and joined by `+`. It is null where one of them notifies of an
outcome: with or without its name, the acts beside it (REQ_MORE and OFFER after a failure only) give the
goal's success away. For the same reason `response.status` is always null.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    GoalAnnotation,
    Position,
    Response,
    Slot,
    Turn,
    TurnAnnotation,
    decode,
    validate,
)
from schemas.ontology import NO_INTENT

_OUTCOMES = {"NOTIFY_SUCCESS": True, "NOTIFY_FAILURE": False}


class _Speaker(StrEnum):
    USER = "USER"
    SYSTEM = "SYSTEM"


class _Span(Struct):
    slot: Annotated[str, Meta(min_length=1)]
    start: Position | None = None
    exclusive_end: Position | None = None


class _Action(Struct):
    act: str


class _State(Struct):
    active_intent: str = NO_INTENT


class _Frame(Struct):
    service: str
    slots: list[_Span] = []
    actions: list[_Action] = []
    state: _State | None = None


class _Turn(Struct):
    speaker: _Speaker
    utterance: str
    frames: list[_Frame] = []


class _Dialogue(Struct):
    dialogue_id: Annotated[str, Meta(min_length=1)]
    turns: Annotated[list[_Turn], Meta(min_length=1)]
    services: list[str] | None = None


_DECODER = msgspec.json.Decoder(_Dialogue)


class SgdFormat(DialogueFormat):
    """Schema-Guided Dialogue, one dialogue a record."""

    name = "sgd"
    source = "https://github.com/google-research-datasets/dstc8-schema-guided-dialogue"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Dialogue, _DECODER)))]


class _Goals:
    """The goals of a dialogue, as its active intents open them turn by turn."""

    def __init__(self) -> None:
        self.goals: list[GoalAnnotation] = []
        self._active: dict[tuple[str, str], GoalAnnotation] = {}

    def at(self, frames: list[_Frame]) -> tuple[GoalAnnotation, str | None, str]:
        """The goal, the service and the intent of the next user turn, which has these frames."""
        named = [(frame.service, frame.state.active_intent) for frame in frames if frame.state is not None]
        intents = [intent for intent in dict.fromkeys(named) if intent[1] != NO_INTENT]
        opened = [intent for intent in intents if intent not in self._active]
        self._active = {intent: self._active.get(intent) or self._open(intent[1]) for intent in intents}
        if not intents:
            goal = self.goals[-1] if self.goals else self._open(None)
            return goal, frames[0].service if frames else None, NO_INTENT
        intent = (opened or intents)[0]
        return self._active[intent], *intent

    def _open(self, intent: str | None) -> GoalAnnotation:
        self.goals.append(GoalAnnotation(goal_id=str(len(self.goals)), intent=intent))
        return self.goals[-1]


def _dialogue(source: _Dialogue) -> Dialogue:
    annotated = any(turn.frames for turn in source.turns)
    goals = _Goals()
    goal: GoalAnnotation | None = None
    turns: list[Turn] = []
    answers: list[list[_Turn]] = [[]]
    for each in source.turns:
        if each.speaker is _Speaker.USER:
            turn = Turn(text=each.utterance)
            if annotated:
                goal, service, intent = goals.at(each.frames)
                turn.annotation = TurnAnnotation(
                    domain=service, intent=intent, slots=_slots(each), goal_id=goal.goal_id
                )
            turns.append(turn)
            answers.append([])
            continue
        answers[-1].append(each)
        for act in _acts(each):
            if goal is not None and act in _OUTCOMES:
                goal.success = _OUTCOMES[act]
    for turn, answer in zip(turns, answers[1:], strict=True):
        turn.response = _response(answer) if answer else None
    return Dialogue(
        dialogue_id=source.dialogue_id,
        turns=turns,
        locale="en",
        opening=" ".join(each.utterance for each in answers[0]) or None,
        services=source.services,
        annotation=DialogueAnnotation(success=_all_reached(goals.goals), goals=goals.goals) if annotated else None,
    )


def _slots(turn: _Turn) -> list[Slot]:
    slots = {
        (span.slot, span.start, span.exclusive_end): Slot(
            name=span.slot,
            value=turn.utterance[span.start : span.exclusive_end],
            start=span.start,
            end=span.exclusive_end,
        )
        for frame in turn.frames
        for span in frame.slots
        if span.start is not None and span.exclusive_end is not None
    }
    return list(slots.values())


def _acts(turn: _Turn) -> list[str]:
    return [action.act for frame in turn.frames for action in frame.actions]


def _response(turns: list[_Turn]) -> Response:
    """What the system said to one request; the acts are those of the last that it said."""
    acts = set(_acts(turns[-1]))
    action = None if acts & _OUTCOMES.keys() else "+".join(sorted(acts)) or None
    return Response(text=" ".join(turn.utterance for turn in turns), action=action)


def _all_reached(goals: list[GoalAnnotation]) -> bool | None:
    reached = {goal.success for goal in goals}
    if False in reached:
        return False
    return None if None in reached else True
