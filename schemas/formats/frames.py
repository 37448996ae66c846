"""`frames`: Microsoft's Frames corpus, one dialogue a record.

A record is one element of the corpus' `frames.json`: `{"id", "user_id", "turns", "labels"}`, as its dataset page and
El Asri et al., *Frames: A Corpus for Adding Memory to Goal-Oriented Dialogue Systems* (SIGDIAL 2017) describe it: a
user looks for a holiday, and a person (the wizard) who plays the assistant searches a database of them.

A turn is a message of the user with the messages of the wizard that follow it; a user who writes twice makes two
turns, the first without a response. What the wizard writes before the user does is the dialogue's `opening`.

- A goal is a frame: one holiday that is talked about. A turn belongs to the goal of its `active_frame`, and a goal
  starts where a user turn has that frame for the first time. Going back to a frame goes back to its goal, so goals
  interleave. The corpus opens a frame for each changed wish and for each offer, so these goals are finer than those
  of other data: "and in September?" starts one, as the choice of one of three offers does. An offer that the user
  never turns to is no goal.
- A turn's intent is the `intent` that the user informs of (`book`), else the user's acts, sorted and joined by `+`;
  thankyou, greeting and goodbye are left out, and NONE is what has no other act. The corpus is of one domain, which it
  does not name: `domain` is null.
- Slots are the values in the user's inform acts, as `acts_without_refs` has them (with those by which the user names
  another frame), with their span where the turn says them. References to frames and arguments without a value are
  left out.
- A dialogue has succeeded where the wizard said afterwards that the user's goal was achieved
  (`wizardSurveyTaskSuccessful`). The user was asked something else, how good the wizard's service was, from 1 to 5
  (`userSurveyRating`): that is the feedback's rating, and no success follows from it (of a holiday that is not to be
  had, users rate the service with 5, too). Both are of the whole dialogue, so that only the goal of a dialogue with
  one has a success.

The wizard's acts, frames and searches are left out: `response.action` and `response.status` are always null. People
wrote the acts and frames afterwards, knowing where the dialogue went; no assistant has such a log, and which frames
the wizard's acts speak of says which goal the next turn belongs to.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord, as_text
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    DialogueFeedback,
    GoalAnnotation,
    Response,
    Slot,
    Turn,
    TurnAnnotation,
    decode,
    from_unix,
    validate,
)
from schemas.ontology import NO_INTENT

_UNCOUNTED = frozenset({"thankyou", "greeting", "goodbye"})
_INTENT = "intent"


class _Author(StrEnum):
    USER = "user"
    WIZARD = "wizard"


class _Argument(Struct):
    key: str
    val: Any = None


class _Act(Struct):
    name: str
    args: list[_Argument] = []


class _TurnLabels(Struct):
    active_frame: int
    acts_without_refs: list[_Act] = []


class _Turn(Struct):
    author: _Author
    text: str
    timestamp: float | None = None
    """Milliseconds since 1970."""
    labels: _TurnLabels | None = None


class _Survey(Struct, rename="camel"):
    user_survey_rating: Annotated[float, Meta(ge=1, le=5)] | None = None
    wizard_survey_task_successful: bool | None = None


class _Dialogue(Struct):
    id: Annotated[str, Meta(min_length=1)]
    turns: Annotated[list[_Turn], Meta(min_length=1)]
    user_id: str | None = None
    labels: _Survey = msgspec.field(default_factory=_Survey)


_DECODER = msgspec.json.Decoder(_Dialogue)


class FramesFormat(DialogueFormat):
    """Frames, one dialogue a record."""

    name = "frames"
    source = "https://www.microsoft.com/en-us/research/project/frames-dataset/"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Dialogue, _DECODER)))]


def _dialogue(source: _Dialogue) -> Dialogue:
    turns: list[Turn] = []
    goals: dict[int, GoalAnnotation] = {}
    answers: list[list[str]] = [[]]
    for each in source.turns:
        if each.author is _Author.WIZARD:
            answers[-1].append(each.text)
            continue
        turn = Turn(text=each.text, started_at=None if each.timestamp is None else from_unix(each.timestamp / 1_000))
        if each.labels is not None:
            frame = each.labels.active_frame
            goal = goals.setdefault(frame, GoalAnnotation(goal_id=str(frame)))
            turn.annotation = _annotation(each.labels.acts_without_refs, each.text, goal.goal_id)
        turns.append(turn)
        answers.append([])
    for turn, answer in zip(turns, answers[1:], strict=True):
        turn.response = Response(text=" ".join(answer) or None) if answer else None
    success, rating = source.labels.wizard_survey_task_successful, source.labels.user_survey_rating
    if len(goals) == 1:
        next(iter(goals.values())).success = success
    return Dialogue(
        dialogue_id=source.id,
        turns=turns,
        locale="en",
        user_id=source.user_id,
        opening=" ".join(answers[0]) or None,
        feedback=None if rating is None else DialogueFeedback(rating=(rating - 1) / 4),
        annotation=DialogueAnnotation(success=success, goals=list(goals.values()) or None)
        if goals or success is not None
        else None,
    )


def _annotation(acts: list[_Act], text: str, goal_id: str) -> TurnAnnotation:
    """What the user's acts say of a turn of this text."""
    informed = [
        (argument.key, as_text(argument.val))
        for act in acts
        if act.name == "inform"
        for argument in act.args
        if argument.val is not None and not isinstance(argument.val, list)
    ]
    counted = sorted({act.name for act in acts} - _UNCOUNTED)
    intent = next((value for key, value in informed if key == _INTENT), None)
    return TurnAnnotation(
        intent=intent or "+".join(counted) or NO_INTENT,
        slots=[Slot.said_in(text, key, value) for key, value in dict.fromkeys(informed) if key != _INTENT],
        goal_id=goal_id,
    )
