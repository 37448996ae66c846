"""`dbdc3`: the Dialogue Breakdown Detection Challenge 3, chats with a system that thirty people judged, one a record.

Higashinaka et al., *Overview of Dialogue Breakdown Detection Challenge 3* (DSTC6 workshop, 2017). A record is a file
of the data set: `{"dialogue-id", "speaker-id", "turns": [{"speaker": "U" | "S", "utterance", "annotations"}, …]}`. Of
each utterance of the system (`S`) about thirty people said whether the talk breaks down there: `O` not, `T` possibly,
`X` yes.

A turn is what the user said at once, with what the system said until the user spoke again; what it says before the
first request is the dialogue's `opening`.

- A turn's ratings are what people said of its response: 1 for `O`, .5 for `T`, 0 for `X`. Where the response is several
  utterances, or a person judged one twice, a person's rating is the mean.
- The opening belongs to no turn, so what is said of it is left out (in the data nobody judged it).
- The people are in the order in which the dialogue first has them. In some dialogues one of them was replaced halfway:
  from there on those after them stand one place further to the front, and the new one last.
- A breakdown is no failure point: people judged a chat, in which nothing is asked for that could go wrong in one
  component or another. The comments on a judgement are left out, and so are those on grammar.

The logs annotate no label, so they are for `faultline evaluate`, which compares its labels with the ratings.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import groupby
from statistics import fmean
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import Dialogue, Response, Turn, TurnAnnotation, decode, validate
from schemas.rejects import RecordError, RejectReason, Stage


class _Speaker(StrEnum):
    USER = "U"
    SYSTEM = "S"


class _Breakdown(StrEnum):
    NONE = "O"
    POSSIBLE = "T"
    BREAKDOWN = "X"


_RATINGS = {_Breakdown.NONE: 1.0, _Breakdown.POSSIBLE: 0.5, _Breakdown.BREAKDOWN: 0.0}


class _Judgement(Struct, rename="kebab"):
    breakdown: _Breakdown
    annotator_id: str


class _Utterance(Struct):
    speaker: _Speaker
    utterance: str
    annotations: list[_Judgement] = []


class _Chat(Struct, rename="kebab"):
    dialogue_id: Annotated[str, Meta(min_length=1)]
    turns: Annotated[list[_Utterance], Meta(min_length=1)]
    speaker_id: str | None = None


_DECODER = msgspec.json.Decoder(_Chat)


class Dbdc3Format(DialogueFormat):
    """DBDC3, one chat a record."""

    name = "dbdc3"
    source = "https://dbd-challenge.github.io/dbdc3/"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Chat, _DECODER)))]


def _dialogue(chat: _Chat) -> Dialogue:
    opening, turns = None, []
    people = list(dict.fromkeys(each.annotator_id for said in chat.turns for each in said.annotations))
    for speaker, group in groupby(chat.turns, key=lambda each: each.speaker):
        said = list(group)
        text = " ".join(each.utterance for each in said)
        if speaker is _Speaker.USER:
            turns.append(Turn(text=text))
        elif turns:
            turns[-1].response = Response(text=text)
            turns[-1].annotation = _annotation([each for one in said for each in one.annotations], people)
        else:
            opening = text
    if not turns:
        raise RecordError(Stage.PARSE, RejectReason.NO_TURNS, "the user says nothing in this chat")
    return Dialogue(dialogue_id=chat.dialogue_id, turns=turns, opening=opening, user_id=chat.speaker_id or None)


def _annotation(judgements: list[_Judgement], people: list[str]) -> TurnAnnotation | None:
    """Of a turn with these judgements of its response; null where there is none."""
    by_person: dict[str, list[float]] = {}
    for each in judgements:
        by_person.setdefault(each.annotator_id, []).append(_RATINGS[each.breakdown])
    ratings = [fmean(by_person[person]) for person in people if person in by_person]
    return TurnAnnotation(ratings=ratings) if ratings else None
