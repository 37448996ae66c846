"""The truth about a turn: what would have happened had one stage been right?"""

from __future__ import annotations

from collections.abc import Mapping

from rapidfuzz import fuzz

from pipelines.simulation import action, users
from pipelines.simulation.action import Outcome
from pipelines.simulation.assistant import Assistant, Luck, Pending, Run
from pipelines.simulation.nlu import true_parse
from pipelines.simulation.users import Goal, Utterance
from schemas.log import FailurePoint

_SAME_MESSAGE = 88.0
"""Similarity, per cent, from which a dictated text is near enough."""
CLEARLY = -0.05
"""The recognition score of what was heard without any doubt."""


def failure_point(
    assistant: Assistant,
    utterance: Utterance,
    goal: Goal | None,
    run: Run,
    text: str,
    heard: float,
    pending: Pending | None,
    luck: Luck,
) -> FailurePoint:
    """The first stage with whose true output the turn would have come right; `correct` where it did."""
    if is_right(run.outcome, utterance, goal):
        return FailurePoint.CORRECT
    if utterance.source != "user":
        return FailurePoint.WAKE
    # A skill that fails besides does not excuse the stages before it.
    luck = luck._replace(fault=None)
    if is_right(assistant.respond(text, heard, pending, luck).outcome, utterance, goal):
        return FailurePoint.RESULT
    true_frame = (true_parse(utterance.intent, utterance.slots, text),)
    meant = goal.entities if goal is not None else {}
    # One stage alone first; then, where it also takes luck with namesakes, with the true entities besides.
    for besides in ({}, meant):
        runs = (
            (FailurePoint.ASR, assistant.respond(utterance.text, CLEARLY, pending, luck, meant=besides)),
            (FailurePoint.NLU, assistant.respond(text, heard, pending, luck, nlu=true_frame, meant=besides)),
            (FailurePoint.ER, assistant.respond(text, heard, pending, luck, nlu=run.nlu, meant=meant)),
        )
        for point, again in runs:
            if is_right(again.outcome, utterance, goal):
                return point
    return FailurePoint.RESULT


def is_right(outcome: Outcome, utterance: Utterance, goal: Goal | None) -> bool:
    """Whether the assistant did what the user meant, or asked what there was to ask."""
    if utterance.kind == users.BACKGROUND:
        return outcome.kind in (action.IGNORE, action.AGAIN)
    if utterance.kind == users.STOP:
        return outcome.kind == action.STOP
    if utterance.kind == users.NO:
        return outcome.kind == action.DISMISS
    assert goal is not None
    if goal.intent == "unsupported":
        return outcome.kind in (action.REFUSE, action.FALLBACK)
    if outcome.intent != goal.intent:
        return False
    match outcome.kind:
        case action.EXECUTE:
            return outcome.done and _same(outcome.args, goal.args)
        case action.UNAVAILABLE | action.CONFIRM:
            return _same(outcome.args, goal.args)
        case action.CHOOSE:
            entity = goal.entities.get(outcome.asked)
            return entity is not None and entity.entity_id in outcome.args
        case action.ELICIT:
            return outcome.asked not in goal.said
    return False


def _same(args: Mapping[str, str], meant: Mapping[str, str]) -> bool:
    return args.keys() == meant.keys() and all(
        value == meant[slot] or (slot == "message" and fuzz.ratio(value, meant[slot]) >= _SAME_MESSAGE)
        for slot, value in args.items()
    )
