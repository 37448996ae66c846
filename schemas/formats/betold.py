"""`betold`: BETOLD, calls to an appointment desk without their words, one call a record.

Terragni et al., *BETOLD: A Task-Oriented Dialog Dataset for Breakdown Detection* (CAI 2022). A record is
`{"LUHF", "utterances_annotations"}`: what the assistant's language understanding (`nlu`) and generation (`nlg`) logged
of a call, as intents and names of entities. Words and values were taken out, to protect the callers.

A turn is what the caller said (`nlu`) until the assistant spoke, with what it said (`nlg`) until the caller did. What
it said before is left out, having no words. A call in which the caller said nothing has no turns and is rejected.

- Intents are joined by `+` in their order. Those of the caller are the one hypothesis of the understanding, whose
  slots are the entities, with an empty value; those of the assistant are the response's action.
- The words are not known: the one recognised text is empty, as where a recogniser heard nothing. So the failure
  points of these calls mean nothing.
- A call has failed where its caller gave up late, by hanging up or asking for a person (`LUHF` is `luhf`), else
  succeeded, and so has its one goal.
- The last turn has no response. Most calls that were given up end with the assistant's words in the data, most
  others with the caller's: whether there is a last response gives the success away.
- Calls have no id. Theirs is made of what the record says, so of calls that are alike to the last entity all but the
  first are rejected as duplicates.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from itertools import groupby
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import (
    AsrHypothesis,
    Dialogue,
    DialogueAnnotation,
    GoalAnnotation,
    NluHypothesis,
    Response,
    Slot,
    Turn,
    TurnAnnotation,
    decode,
    validate,
)

_GOAL = "0"


class _Caller(StrEnum):
    NLU = "nlu"
    NLG = "nlg"


class _Outcome(StrEnum):
    GIVEN_UP = "luhf"
    NOT_GIVEN_UP = "not_luhf"


class _Entity(Struct):
    entity: Annotated[str, Meta(min_length=1)]


class _Utterance(Struct):
    caller_name: _Caller
    intent: str
    entities: list[_Entity] = []


class _Call(Struct):
    utterances_annotations: list[_Utterance]
    outcome: _Outcome | None = msgspec.field(name="LUHF", default=None)


_DECODER = msgspec.json.Decoder(_Call)


class BetoldFormat(DialogueFormat):
    """BETOLD, one call a record."""

    name = "betold"
    source = "https://github.com/telepathylabsai/BETOLD_dataset"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Call, _DECODER)))]


def _dialogue(call: _Call) -> Dialogue:
    turns: list[Turn] = []
    for caller, group in groupby(call.utterances_annotations, key=lambda each: each.caller_name):
        said = list(group)
        intents = "+".join(each.intent for each in said)
        if caller is _Caller.NLU:
            names = dict.fromkeys(each.entity for utterance in said for each in utterance.entities)
            slots = [Slot(name=name, value="") for name in names]
            turns.append(Turn(asr=[AsrHypothesis(text="")], nlu=[NluHypothesis(intent=intents, slots=slots)]))
        elif turns:
            turns[-1].response = Response(action=intents or None)
    if turns:
        turns[-1].response = None
    dialogue = Dialogue(
        dialogue_id=f"betold-{hashlib.sha256(msgspec.json.encode(call)).hexdigest()[:16]}", turns=turns, device="phone"
    )
    if call.outcome is not None:
        success = call.outcome is _Outcome.NOT_GIVEN_UP
        goal = GoalAnnotation(goal_id=_GOAL, success=success)
        dialogue.annotation = DialogueAnnotation(success=success, goals=[goal])
        for turn in turns:
            turn.annotation = TurnAnnotation(goal_id=_GOAL)
    return dialogue
