"""Labelling functions: what users show, in a log that nobody annotated, of how a turn went.

- A function looks at one turn in its dialogue and says `defect` or `correct`, always the same of the two, or abstains.
- Each is a rule of thumb and is often wrong. How often, and what several together say, is found out by
  `labelers.label_model`: none takes account of what another one says.
- They read what the log itself says, never `annotation`.

The idea and the name are of data programming (Ratner et al. 2016, arXiv:1605.07723); that users who rephrase, correct,
interrupt or give up tell of defects, of Ponnusamy et al. 2020 (*Feedback-based self-learning in large-scale
conversational AI agents*). A new function is one more function here, with its decorator.

Dimensions: N turns (of all dialogues, one after the other), J labelling functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from encoders.hypotheses import clip
from labelers.feedback import corrects, gives_up, repeats
from schemas.log import Dialogue, ExplicitFeedback, Turn

Rule = Callable[[Dialogue, int], bool]
"""Whether a function has something to say of the turn with that index."""

ALIKE, UNLIKE = 80.0, 50.0
"""Per cent of rapidfuzz's `token_set_ratio`: two requests that are about as good as the same, and two that are not."""
UNHAPPY, HAPPY = 0.25, 0.75
"""Ratings up to which a user was dissatisfied, and from which they were content."""
CLOSING = 2
"""Requests at the end of a successful dialogue that went well, too: the one that succeeded and the goodbye."""

_FAILED = frozenset({"failure", "failed", "error"})
_THANKS = re.compile(r"\b(thanks?|thank you|great|perfect|awesome|excellent|cheers|good ?bye|bye)\b", re.IGNORECASE)
_NO = re.compile(r"\bno\b", re.IGNORECASE)
_YES = re.compile(r"^\W*(yes|yeah|yep|yup|correct|right|sure|ok|okay|exactly)\b", re.IGNORECASE)


class Vote(StrEnum):
    """What a labelling function says of a turn, where it does not abstain."""

    DEFECT = "defect"
    CORRECT = "correct"


class LabellingFunction(NamedTuple):
    """A rule, and what it says where it holds."""

    name: str
    vote: Vote
    rule: Rule


FUNCTIONS: list[LabellingFunction] = []
"""All of them, in the order of this file."""


def votes(vote: Vote) -> Callable[[Rule], Rule]:
    """Makes a rule a labelling function that votes so where it holds."""

    def register(rule: Rule) -> Rule:
        FUNCTIONS.append(LabellingFunction(rule.__name__, vote, rule))
        return rule

    return register


def cast(dialogues: Sequence[Dialogue]) -> npt.NDArray[np.bool_]:
    """(N, J), True where a function of `FUNCTIONS` votes on a turn."""
    return np.array(
        [
            [function.rule(dialogue, index) for function in FUNCTIONS]
            for dialogue in dialogues
            for index in range(len(dialogue.turns))
        ],
        dtype=np.bool_,
    ).reshape(-1, len(FUNCTIONS))


# What is wrong


@votes(Vote.DEFECT)
def spoken_over(dialogue: Dialogue, index: int) -> bool:
    """The user spoke over the response."""
    return dialogue.turns[index].barge_in is True


@votes(Vote.DEFECT)
def repeated(dialogue: Dialogue, index: int) -> bool:
    """The next request has (nearly) the same words."""
    following = _later(dialogue, index)
    return following is not None and repeats(following, dialogue.turns[index])


@votes(Vote.DEFECT)
def rephrased(dialogue: Dialogue, index: int) -> bool:
    """The next request has most of the words again, or more of them."""
    following = _later(dialogue, index)
    return _alike(dialogue, index, 1) >= ALIKE and not (following and repeats(following, dialogue.turns[index]))


@votes(Vote.DEFECT)
def asked_later(dialogue: Dialogue, index: int) -> bool:
    """The request after the next has most of the words again; the next had not."""
    return _alike(dialogue, index, 2) >= ALIKE > _alike(dialogue, index, 1)


@votes(Vote.DEFECT)
def corrected(dialogue: Dialogue, index: int) -> bool:
    """The next request has words such as "no", "wrong", "I said"."""
    following = _later(dialogue, index)
    return following is not None and corrects(following)


@votes(Vote.DEFECT)
def gave_up(dialogue: Dialogue, index: int) -> bool:
    """The next request has words such as "never mind", "stop"."""
    following = _later(dialogue, index)
    return following is not None and gives_up(following)


@votes(Vote.DEFECT)
def disliked(dialogue: Dialogue, index: int) -> bool:
    """The user said by a button, or when asked, that the response was bad."""
    return dialogue.turns[index].feedback is ExplicitFeedback.NEGATIVE


@votes(Vote.DEFECT)
def unhappy_end(dialogue: Dialogue, index: int) -> bool:
    """The user said of the dialogue that it failed; of its last request, mostly a goodbye, that says nothing."""
    return _outcome(dialogue) is False and (index < len(dialogue.turns) - 1 or index == 0)


@votes(Vote.DEFECT)
def not_done(dialogue: Dialogue, index: int) -> bool:
    """The log says that the action failed."""
    response = dialogue.turns[index].response
    return response is not None and (response.status or "").lower() in _FAILED


@votes(Vote.DEFECT)
def no_progress(dialogue: Dialogue, index: int) -> bool:
    """The assistant said the same as in the turn before."""
    before, now = (_response(dialogue.turns[each]) for each in (max(index - 1, 0), index))
    return index > 0 and bool(now) and fuzz.ratio(before, now) >= 95


# What is right


@votes(Vote.CORRECT)
def liked(dialogue: Dialogue, index: int) -> bool:
    """The user said by a button, or when asked, that the response was good."""
    return dialogue.turns[index].feedback is ExplicitFeedback.POSITIVE


@votes(Vote.CORRECT)
def happy_end(dialogue: Dialogue, index: int) -> bool:
    """The user said of the dialogue that it succeeded, and this is one of its last requests."""
    return _outcome(dialogue) is True and index >= len(dialogue.turns) - CLOSING


@votes(Vote.CORRECT)
def thanked(dialogue: Dialogue, index: int) -> bool:
    """The next request has words such as "thank you", "goodbye", and asks for nothing."""
    following = _later(dialogue, index)
    if following is None:
        return False
    text = _text(following)
    return bool(_THANKS.search(text)) and not _NO.search(text) and not (following.nlu and following.nlu[0].slots)


@votes(Vote.CORRECT)
def confirmed(dialogue: Dialogue, index: int) -> bool:
    """The response asks whether a value that was understood is right, and the user says yes."""
    following = _later(dialogue, index)
    asks = _response(dialogue.turns[index]).rstrip().endswith("?")
    return following is not None and asks and _said_back(dialogue.turns[index]) and bool(_YES.search(_text(following)))


@votes(Vote.CORRECT)
def accepted(dialogue: Dialogue, index: int) -> bool:
    """The response has a value that was understood, and the next request is another one."""
    return _said_back(dialogue.turns[index]) and 0 <= _alike(dialogue, index, 1) < ALIKE


@votes(Vote.CORRECT)
def went_on(dialogue: Dialogue, index: int) -> bool:
    """The next request has hardly a word of this one."""
    return 0 <= _alike(dialogue, index, 1) < UNLIKE


# What they look at


def _later(dialogue: Dialogue, index: int, turns: int = 1) -> Turn | None:
    return dialogue.turns[index + turns] if index + turns < len(dialogue.turns) else None


def _text(turn: Turn) -> str:
    return clip(turn.text)


def _response(turn: Turn) -> str:
    return clip(turn.response.text if turn.response else None)


def _alike(dialogue: Dialogue, index: int, turns: int) -> float:
    """How much of the shorter of two requests is in the other, in per cent; -1 where there are no words to compare."""
    later = _later(dialogue, index, turns)
    one, other = _text(dialogue.turns[index]), _text(later) if later else ""
    return fuzz.token_set_ratio(one, other) if one.strip() and other.strip() else -1.0


def _said_back(turn: Turn) -> bool:
    response = _response(turn)
    return bool(turn.nlu) and any(slot.value and slot.value.lower() in response for slot in turn.nlu[0].slots)


def _outcome(dialogue: Dialogue) -> bool | None:
    """Whether the user was content in the end: by the survey's answer, else by a rating that is clear."""
    feedback = dialogue.feedback
    if feedback is None or feedback.success is not None or feedback.rating is None:
        return feedback.success if feedback else None
    return True if feedback.rating >= HAPPY else False if feedback.rating <= UNHAPPY else None
