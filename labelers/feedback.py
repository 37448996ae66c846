"""Feedback signals: what the user let the assistant know, by words, buttons or by what they did next.

These are read off the log by rule; only `rephrase`, and a `give_up` that was not put in words, rest on a model's
labels. Words of correction follow the negative-feedback phrases of Ponnusamy et al. 2020 (*Feedback-based
self-learning in large-scale conversational AI agents*).
"""

from __future__ import annotations

import re

from rapidfuzz import fuzz

from encoders.hypotheses import clip
from schemas.labels import Signal
from schemas.log import Dialogue, ExplicitFeedback, FailurePoint, Turn

REPEAT_SIMILARITY = 95.0
"""Per cent: the same words again, give or take what a recogniser hears differently."""
_WORDS_LIMIT = 200
"""Characters of a request in which words of correction or of giving up are looked for."""

# Phones write a typographic apostrophe.
_CORRECTION = re.compile(
    r"\b(no|nope|wrong|not that|i said|i meant|i didn['\u2019]?t (say|ask|mean)|"
    r"that['\u2019]?s not (it|what|right))\b",
    re.IGNORECASE,
)
_GIVE_UP = re.compile(r"\b(forget it|never ?mind|cancel|stop|shut up|give up|go away)\b", re.IGNORECASE)


def repeats(turn: Turn, earlier: Turn) -> bool:
    """Whether the user says the same words in both turns."""
    text, before = (clip(each.text) for each in (turn, earlier))
    return bool(text.strip()) and fuzz.ratio(text, before) >= REPEAT_SIMILARITY


def corrects(turn: Turn) -> bool:
    """Whether the request has words of correction."""
    return _CORRECTION.search((turn.text or "")[:_WORDS_LIMIT]) is not None


def gives_up(turn: Turn) -> bool:
    """Whether the request has words of giving up."""
    return _GIVE_UP.search((turn.text or "")[:_WORDS_LIMIT]) is not None


def signals(
    dialogue: Dialogue, index: int, *, rephrase_of: int | None, failure_points: list[FailurePoint]
) -> list[Signal]:
    """The signals that one turn of a dialogue carries, in the order of `Signal`.

    `barge_in`, `positive` and `negative` are about the turn's own response; the others are what the turn's
    request says of an earlier response; the survey's answer stands at the last turn.
    """
    turn = dialogue.turns[index]
    found: set[Signal] = set()
    if turn.barge_in:
        found.add(Signal.BARGE_IN)
    if rephrase_of is not None:
        found.add(Signal.REPHRASE)
    if index:
        if repeats(turn, dialogue.turns[index - 1]):
            found.add(Signal.REPEAT)
        if corrects(turn):
            found.add(Signal.CORRECTION)
    if turn.feedback is not None:
        found.add(Signal.POSITIVE if turn.feedback is ExplicitFeedback.POSITIVE else Signal.NEGATIVE)
    if index == len(dialogue.turns) - 1:
        if index and (gives_up(turn) or failure_points[index] != FailurePoint.CORRECT):
            found.add(Signal.GIVE_UP)
        if dialogue.feedback and dialogue.feedback.success is not None:
            found.add(Signal.SURVEY_SUCCESS if dialogue.feedback.success else Signal.SURVEY_FAILURE)
    return [signal for signal in Signal if signal in found]
