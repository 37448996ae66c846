"""`slurp`: the Spoken Language Understanding Resource Package, one request a record.

Bastianelli et al., *SLURP: A Spoken Language Understanding Resource Package* (EMNLP 2020). A record has one
of two shapes, and makes a dialogue of one turn:

- A sentence, as in the dataset's `devel.jsonl`: `slurp_id`, `sentence`, `scenario`, `action`, `tokens` and
  `entities` as spans of tokens. The turn is typed text, the frame its annotation. `dialogue_id` is `slurp-`
  and `slurp_id`.
- A recording that was put through a recogniser and a language understanding: `recording` (which is
  `dialogue_id`), `asr` (its text), `nlu` (`scenario`, `action`, `entities` as `{"type", "filler"}`) and,
  where it is annotated, `gold`: the same with the `sentence` that was read out and the `failure_point`. Slots
  get the span at which the recognised text has the filler, in the annotation too.

The scenario is the domain; the intent is scenario and action joined by `_` in both shapes (the `intent` of a
sentence, which sometimes lacks the scenario, is not read).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.formats.base import DialogueFormat, RawRecord
from schemas.log import (
    SPAN_TEXT,
    AsrHypothesis,
    Dialogue,
    FailurePoint,
    NluHypothesis,
    Position,
    Slot,
    Turn,
    TurnAnnotation,
    decode,
    fold,
    validate,
)
from schemas.rejects import RecordError, RejectReason, Stage

_Name = Annotated[str, Meta(min_length=1)]


class _Filler(Struct):
    type: _Name
    filler: str


class _Frame(Struct):
    scenario: str
    action: str
    entities: list[_Filler] = []

    def slots_in(self, text: str) -> list[Slot]:
        return [Slot.said_in(text, entity.type, entity.filler) for entity in self.entities]


class _Gold(_Frame, kw_only=True):
    sentence: str
    failure_point: FailurePoint | None = None


class _Recording(Struct):
    recording: _Name
    asr: str
    nlu: _Frame | None = None
    gold: _Gold | None = None


class _Token(Struct):
    surface: str


class _TokenSpan(Struct):
    type: _Name
    span: Annotated[list[Position], Meta(min_length=1)]


class _Sentence(Struct):
    slurp_id: int
    sentence: str
    scenario: str
    action: str
    tokens: list[_Token] = []
    entities: list[_TokenSpan] = []


class _Shape(Struct):
    """What tells a recording from a sentence."""

    recording: str | None = None


_SHAPE_DECODER = msgspec.json.Decoder(_Shape)
_RECORDING_DECODER = msgspec.json.Decoder(_Recording)
_SENTENCE_DECODER = msgspec.json.Decoder(_Sentence)


class SlurpFormat(DialogueFormat):
    """SLURP sentences, and recordings as a recogniser and a language understanding took them."""

    name = "slurp"
    source = "https://github.com/pswietojanski/slurp"

    def parse(self, record: RawRecord) -> list[Dialogue]:
        if decode(record, _Shape, _SHAPE_DECODER).recording is not None:
            return [validate(_recording(decode(record, _Recording, _RECORDING_DECODER)))]
        return [validate(_sentence(decode(record, _Sentence, _SENTENCE_DECODER)))]


def _intent(scenario: str, action: str) -> str:
    return f"{scenario}_{action}"


def _recording(source: _Recording) -> Dialogue:
    turn = Turn(asr=[AsrHypothesis(text=source.asr)])
    if source.nlu is not None:
        turn.nlu = [
            NluHypothesis(
                domain=source.nlu.scenario,
                intent=_intent(source.nlu.scenario, source.nlu.action),
                slots=source.nlu.slots_in(source.asr),
            )
        ]
    if source.gold is not None:
        turn.annotation = TurnAnnotation(
            transcript=source.gold.sentence,
            intent=_intent(source.gold.scenario, source.gold.action),
            slots=source.gold.slots_in(source.asr),
            failure_point=source.gold.failure_point,
        )
    return Dialogue(dialogue_id=source.recording, turns=[turn], locale="en")


def _sentence(source: _Sentence) -> Dialogue:
    annotation = TurnAnnotation(intent=_intent(source.scenario, source.action), slots=_token_slots(source))
    return Dialogue(
        dialogue_id=f"slurp-{source.slurp_id}",
        turns=[Turn(text=source.sentence, annotation=annotation)],
        locale="en",
    )


def _token_slots(source: _Sentence) -> list[Slot]:
    surfaces = [token.surface for token in source.tokens]
    spans = _token_spans(source.sentence, surfaces)
    slots = []
    for entity in source.entities:
        first, last = entity.span[0], entity.span[-1]
        if not first <= last < len(surfaces):
            raise RecordError(
                Stage.VALIDATE,
                RejectReason.INVALID_VALUE,
                f"entity {entity.type} spans the tokens {first} to {last} of {len(surfaces)}",
            )
        start, end = spans[first], spans[last]
        if start is None or end is None:
            slots.append(Slot(name=entity.type, value=" ".join(surfaces[first : last + 1])))
        else:
            value = source.sentence[start[0] : end[1]]
            slots.append(Slot(name=entity.type, value=value, start=start[0], end=end[1]))
    return slots


def _token_spans(sentence: str, surfaces: list[str]) -> list[tuple[int, int] | None]:
    """Where each token is in the sentence. The tokens come of a corrected spelling: null where they differ."""
    spans: list[tuple[int, int] | None] = []
    folded = fold(sentence)
    position = 0
    for surface in surfaces:
        start = folded.find(fold(surface), position, position + SPAN_TEXT)
        spans.append((start, start + len(surface)) if start >= 0 else None)
        position = start + len(surface) if start >= 0 else position
    return spans
