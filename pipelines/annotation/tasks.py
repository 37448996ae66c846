"""What is asked of a person about one turn, and what they answer, in the words of no tool."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from schemas.labels import SlotLabel
from schemas.log import FailurePoint

NOTHING_HEARD = "(no words)"
"""Shown where the turn's text is empty: the tools want one."""
YES, NO = "yes", "no"

_WRITTEN_SLOT = re.compile(r"\s*(?P<name>[^=]*[^=\s])\s*=\s*(?P<value>.*\S)\s*")


class Strategy(StrEnum):
    """Why a turn needs a person."""

    UNCERTAIN = "uncertain"
    DISAGREEING = "disagreeing"
    NEW = "new"
    RANDOM = "random"


class Question(StrEnum):
    """The names of the questions, in both tools."""

    FAILURE_POINT = "failure_point"
    SUCCESS = "success"
    INTENT = "intent"
    OTHER_INTENT = "other_intent"
    SLOTS = "slots"
    OTHER_SLOTS = "other_slots"
    TRANSCRIPT = "transcript"


TITLES = {
    Question.FAILURE_POINT: "What failed first in this turn, for good?",
    Question.SUCCESS: "Did the user get everything that they wanted in this dialogue?",
    Question.INTENT: "What did the user mean by this turn?",
    Question.OTHER_INTENT: "If none of these: the intent's name",
    Question.SLOTS: "Mark the values that the user meant",
    Question.OTHER_SLOTS: "Values that are not words of the text, one a line: name = value",
    Question.TRANSCRIPT: "What did the user really say? Empty where nobody spoke to the assistant",
}

MEANINGS = {
    FailurePoint.CORRECT: "no component failed, or the system recovered from an upstream error. A request that the "
    "assistant cannot serve, refused honestly, is correct",
    FailurePoint.WAKE: "nobody spoke to the assistant, yet it acted",
    FailurePoint.ASR: "the words were recognised wrongly, and with the right words the rest would have worked",
    FailurePoint.NLU: "the words were (near enough) right; the domain, intent or slot was understood wrongly",
    FailurePoint.ER: "the slot was right; its value was resolved to the wrong entity",
    FailurePoint.RESULT: "understood and resolved rightly, yet the wrong thing was done or said",
}

GUIDELINES = (
    "You judge one turn of a dialogue: the one marked with ▶. Read the whole dialogue first: what the user did next "
    "often tells what went wrong. The answers that stand there are a model's, and this turn was chosen because they "
    "may be wrong. Upstream comes first: wake, asr, nlu, er, result. If ASR fails and ER fails after it, the failure "
    "point is asr. If ASR drops a word and the right thing is done all the same, the turn is correct. Skip a turn "
    "that you cannot judge."
)


class Line(Struct, frozen=True):
    """One thing said in a dialogue."""

    speaker: str
    """`user` or `assistant`"""
    text: str
    asked: bool
    """it is the request of the turn that is asked about"""


class Suggested(Struct, frozen=True):
    """The model's labels: the answers that stand there when a person opens the task."""

    failure_point: FailurePoint
    failure_point_confidence: float
    success: bool
    """of the dialogue"""
    success_confidence: float
    intent: str | None
    intent_confidence: float | None
    slots: list[SlotLabel]


class Task(Struct, frozen=True):
    """One turn to be judged."""

    dataset: str
    """as in `pipelines.labelled`: two datasets may have dialogues of the same id"""
    dialogue_id: str
    turn_index: int
    text: str
    """the turn's text as it is shown (`shown`)"""
    spoken: bool
    """the log has a recogniser's hypotheses: there is a transcript to ask for"""
    lines: list[Line]
    """the whole dialogue"""
    system: list[str]
    """what the components made of the turn, a line each"""
    strategy: Strategy
    why: str
    suggested: Suggested
    model_version: str


class Form(Struct, frozen=True):
    """What can be chosen from."""

    intents: list[str]
    slots: list[str]
    spoken: bool
    """ask for transcripts"""


class Answer(Struct, frozen=True):
    """What one person said of one turn; null: they did not say."""

    dataset: str
    dialogue_id: str
    turn_index: int
    text: str
    """as it was shown"""
    failure_point: FailurePoint | None
    success: bool | None
    intent: str | None
    marked: frozenset[tuple[str, int, int]]
    """slots that are words of the text: name, first character, one past the last"""
    written: frozenset[tuple[str, str]]
    """slots that are not: name, value"""
    transcript: str | None


class Reason(StrEnum):
    """Why something in a file of answers is not taken over."""

    SKIPPED = "skipped"
    UNANSWERED = "unanswered"
    MALFORMED = "malformed"
    UNKNOWN_TURN = "unknown_turn"
    CHANGED_TEXT = "changed_text"
    TIE = "tie"


class LeftOut(Struct, frozen=True):
    """One answer, or one question of a turn, that is not taken over."""

    reason: Reason
    message: str
    """which one, and what was wrong, as a sentence"""


class AnswerError(ValueError):
    """An answer that cannot be understood; the message says what is wrong with it."""


def shown(text: str | None) -> str:
    """A text as the tools show it: a character for a character, so that a span is the same here and there.

    Their pages count a character beyond U+FFFF as two, which would move every span behind it: it is shown as □, and
    line breaks and control characters as spaces. Without any words it is `NOTHING_HEARD`.
    """
    whole = "".join("□" if each > "\uffff" else each if each.isprintable() else " " for each in text or "")
    return whole if whole.strip() else NOTHING_HEARD


def answered(
    place: tuple[str, str, int, str],
    *,
    spoken: bool,
    failure_point: str | None,
    success: str | None,
    intent: str | None,
    other_intent: str | None,
    spans: Sequence[tuple[str, int, int]],
    other_slots: str,
    transcript: str | None,
) -> Answer:
    """One person's answers as they stand in the tool; `place` is dataset, dialogue id, turn index and text shown.

    Raises `AnswerError` for a name that is none of the choices, a span outside of the text, or a value written
    otherwise than `name = value`.
    """
    *_, text = place
    if failure_point is not None and failure_point not in tuple(FailurePoint):
        raise AnswerError(f"{failure_point!r} is no failure point: choose from {', '.join(FailurePoint)}")
    if success not in (YES, NO, None):
        raise AnswerError(f"the success is {success!r}: it must be {YES} or {NO}")
    for name, start, end in spans:
        if not 0 <= start < end <= len(text):
            raise AnswerError(f"the span {start}..{end} of slot {name} is outside of its text")
    point = None if failure_point is None else FailurePoint(failure_point)
    if spoken and transcript is None and point is FailurePoint.WAKE:
        transcript = ""  # a tool knows no empty answer
    return Answer(
        *place,
        failure_point=point,
        success=None if success is None else success == YES,
        intent=(other_intent or "").strip() or intent,
        marked=frozenset() if text == NOTHING_HEARD else frozenset(spans),
        written=frozenset(_written(other_slots)),
        transcript=None if transcript is None else transcript.strip(),
    )


def _written(lines: str) -> Iterator[tuple[str, str]]:
    for line in filter(str.strip, lines.splitlines()):
        slot = _WRITTEN_SLOT.fullmatch(line)
        if slot is None:
            raise AnswerError(f"{line!r} is no slot: write name = value")
        yield slot["name"], slot["value"]
