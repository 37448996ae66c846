"""`utterances`: plain conversations, one a record: who said what.

A record is `{"turns": [{"speaker": "user" | "system", "text": …}, …], "dialogue_id": …}`. Without an id it has the
digest of what was said, so that the same conversation has the same id everywhere.

A turn is what the user said at once, with what the system said until the user spoke again; what it says before the
first request is the dialogue's `opening`. Nothing is annotated: such logs are for `faultline pretrain`, or to be
labelled.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from itertools import groupby
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import Dialogue, Response, Turn, decode, validate
from schemas.rejects import RecordError, RejectReason, Stage


class _Speaker(StrEnum):
    USER = "user"
    SYSTEM = "system"


class _Utterance(Struct):
    speaker: _Speaker
    text: str


class _Conversation(Struct):
    turns: Annotated[list[_Utterance], Meta(min_length=1)]
    dialogue_id: Annotated[str, Meta(min_length=1)] | None = None


_DECODER = msgspec.json.Decoder(_Conversation)


class UtterancesFormat(DialogueFormat):
    """Plain conversations, one a record."""

    name = "utterances"
    source = "`schemas.formats.utterances`"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        return [validate(_dialogue(decode(record, _Conversation, _DECODER)))]


def _dialogue(said: _Conversation) -> Dialogue:
    opening, turns = None, []
    for speaker, utterances in groupby(said.turns, key=lambda each: each.speaker):
        text = " ".join(each.text for each in utterances)
        if speaker is _Speaker.USER:
            turns.append(Turn(text=text))
        elif turns:
            turns[-1].response = Response(text=text)
        else:
            opening = text
    if not turns:
        raise RecordError(Stage.PARSE, RejectReason.NO_TURNS, "the user says nothing in this conversation")
    # Escaped, as lone surrogates have no UTF-8.
    digest = hashlib.sha256(json.dumps([(each.speaker, each.text) for each in said.turns]).encode()).hexdigest()
    return Dialogue(dialogue_id=said.dialogue_id or digest[:32], turns=turns, opening=opening)
