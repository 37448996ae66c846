"""`tiage`: TIAGE, chit-chat of two people with its changes of topic, one dialogue a record.

Xie et al., *TIAGE: A Benchmark for Topic-Shift Aware Dialog Modeling* (Findings of EMNLP 2021). A record is
`{"dial_id", "utterances", "segments"}`, the form in which Xing and Carenini's collection of data sets for dialogue
topic segmentation has it and others: the two people take turns, and `segments` holds the number of utterances of each
topic, in order.

A turn is an utterance of the person who speaks first, as the user, with the answer of the other. `dialogue_id` is
`tiage-` and `dial_id`.

- A goal is a topic, which never comes back. A turn belongs to the topic of the user's utterance: where the other
  person changes the topic, the user's next turn starts the goal. A topic that nobody but the other person speaks of
  (one in fourteen) is no goal.
- There are no intents, slots, domains or successes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import (
    Dialogue,
    DialogueAnnotation,
    GoalAnnotation,
    Response,
    Turn,
    TurnAnnotation,
    decode,
    validate,
)
from schemas.rejects import RecordError, RejectReason, Stage


class _Dialogue(Struct):
    dial_id: int
    utterances: list[str]
    segments: list[Annotated[int, Meta(ge=1)]] | None = None


_DECODER = msgspec.json.Decoder(_Dialogue)


class TiageFormat(DialogueFormat):
    """TIAGE, one dialogue a record."""

    name = "tiage"
    source = "https://github.com/lxing532/Dialogue-Topic-Segmenter/tree/main/data"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Dialogue, _DECODER)))]


def _dialogue(source: _Dialogue) -> Dialogue:
    said, answers = source.utterances[::2], source.utterances[1::2]
    turns = [Turn(text=text) for text in said]
    for turn, answer in zip(turns, answers, strict=False):
        turn.response = Response(text=answer or None)
    dialogue = Dialogue(dialogue_id=f"tiage-{source.dial_id}", turns=turns, locale="en")
    if source.segments is not None:
        topics = _topics(source.segments, len(source.utterances))[::2]
        for turn, topic in zip(turns, topics, strict=True):
            turn.annotation = TurnAnnotation(goal_id=topic)
        dialogue.annotation = DialogueAnnotation(goals=[GoalAnnotation(goal_id=each) for each in dict.fromkeys(topics)])
    return dialogue


def _topics(segments: list[int], count: int) -> list[str]:
    """The topic of each of so many utterances, by its number from 0."""
    if sum(segments) != count:
        message = f"the segments are of {sum(segments)} utterances, the dialogue has {count}"
        raise RecordError(Stage.VALIDATE, RejectReason.INVALID_VALUE, message)
    return [str(topic) for topic, size in enumerate(segments) for _ in range(size)]
