"""`star`: the Schema-Guided Dialog Dataset for Transfer Learning, one dialogue a record.

Mosig, Mehri and Kober, *STAR: A Schema-Guided Dialog Dataset for Transfer Learning* (2020). A record is one
file of its `dialogues` folder: the events of a user and of a person (the wizard) who plays the assistant, and
what both were asked afterwards.

A turn is one `utter` of the user; what the wizard shows until the next is its response: `utter`, or
`pick_suggestion`, whose `ActionLabel` is the response's action. `request_suggestions` is what the wizard
typed to get suggestions, which the user never saw. A user who spoke twice makes two turns, the first without
a response. A dialogue in which the user never spoke (they disconnected) has no turns and is rejected.
`dialogue_id` is `star-` and `DialogueID`.

- In dialogues of several tasks the wizard says with `select_task` which one the last request is about. The
  task in force when the next request comes (a wizard sometimes tries several) is the turn's intent. A turn on
  which it changes is a boundary of goals; going back to a task goes back to its goal, so goals interleave.
  What comes before the first `select_task` is a goal of its own without intent.
- In dialogues of one task that task is the intent and the one goal.
- Success is what the user said to the questions on the outcome ("Did the assistant reserve your hotel?"): all
  yes, or not. It is also the dialogue's feedback. It is null for dialogues that were broken off, or in which
  nobody asked: all those of several tasks, so that only a single task's goal has a success. The questions on
  manners and enjoyment, and one on what a weather report said, do not count.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    DialogueFeedback,
    GoalAnnotation,
    Response,
    Turn,
    TurnAnnotation,
    decode,
    from_unix,
    validate,
)

_NOT_ON_OUTCOME = re.compile(r"calm and helpful|enjoy|about rain", re.IGNORECASE)


class _Event(Struct, rename="pascal"):
    agent: str
    action: str
    text: str | None = None
    task: str | None = None
    action_label: str | None = None
    unix_time: float | None = None


class _Answer(Struct, rename="pascal"):
    question: str
    answer: bool | None = None


class _Capability(Struct, rename="pascal"):
    task: str


class _Scenario(Struct, rename="pascal"):
    wizard_capabilities: list[_Capability] = []


class _Dialogue(Struct, rename="pascal", kw_only=True):
    dialogue_id: int = msgspec.field(name="DialogueID")
    events: list[_Event]
    scenario: _Scenario = msgspec.field(default_factory=_Scenario)
    user_questionnaire: list[_Answer] = []
    user: str | None = msgspec.field(name="AnonymizedUserWorkerID", default=None)


_DECODER = msgspec.json.Decoder(_Dialogue)


class StarFormat(DialogueFormat):
    """STAR, one dialogue a record."""

    name = "star"
    source = "https://github.com/RasaHQ/STAR"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Dialogue, _DECODER)))]


def _dialogue(source: _Dialogue) -> Dialogue:
    capabilities = source.scenario.wizard_capabilities
    task = capabilities[0].task if len(capabilities) == 1 else None
    turns: list[Turn] = []
    answers: list[list[_Event]] = [[]]
    tasks: list[str | None] = []
    for event in source.events:
        match event.agent, event.action:
            case "User", "utter":
                started_at = None if event.unix_time is None else from_unix(event.unix_time)
                turns.append(Turn(text=event.text, started_at=started_at))
                tasks.append(task)
                answers.append([])
            case "Wizard", "select_task":
                task = event.task
                if tasks:
                    tasks[-1] = task
            case "Wizard", "utter" | "pick_suggestion":
                answers[-1].append(event)
    goals: dict[str | None, GoalAnnotation] = {}
    for turn, each, answer in zip(turns, tasks, answers[1:], strict=True):
        turn.response = _response(answer) if answer else None
        goal = goals.setdefault(each, GoalAnnotation(goal_id=str(len(goals)), intent=each))
        turn.annotation = TurnAnnotation(intent=each, goal_id=goal.goal_id)
    success = _success(source.user_questionnaire)
    if len(goals) == 1:
        goals[tasks[0]].success = success
    return Dialogue(
        dialogue_id=f"star-{source.dialogue_id}",
        turns=turns,
        locale="en",
        user_id=source.user,
        opening=_response(answers[0]).text,
        feedback=None if success is None else DialogueFeedback(success=success),
        annotation=DialogueAnnotation(success=success, goals=list(goals.values())),
    )


def _response(events: list[_Event]) -> Response:
    """What the wizard shows to one request."""
    return Response(
        text=" ".join(event.text for event in events if event.text) or None,
        action="+".join(event.action_label for event in events if event.action_label) or None,
    )


def _success(answers: list[_Answer]) -> bool | None:
    outcomes = [
        each.answer for each in answers if each.answer is not None and not _NOT_ON_OUTCOME.search(each.question)
    ]
    return all(outcomes) if outcomes else None
