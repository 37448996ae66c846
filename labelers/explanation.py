"""Why the model thinks so: what moved a turn's defect probability.

- Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901; for language, erasure: Li, Monroe and Jurafsky 2016,
  arXiv:1612.08220): the model labels the dialogue again without one thing at a time, and what the probability
  loses is what that thing gave. It is the whole model that is asked, by `Model.label`, so what is explained is the
  label as it is published.
- What is hidden is one kind of evidence of the turn, as if the log did not have it, or one turn at most `REACH` away,
  as if it had not been.
- One thing at a time: where two things say the same, hiding either may change nothing. The changes need not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

import msgspec

from labelers.model import GROUP_TURNS, Model, groups
from schemas.labels import TurnLabels
from schemas.log import Dialogue, FailurePoint, Turn
from schemas.ontology import Ontology

REACH = 4
"""Turns before and after. The model reads more of the dialogue, but of 752 turns further away none moved P(defect) by
more than 0.05 (dstc2 with the builtin model), and every one costs as much as another label of the whole dialogue."""


class Evidence(StrEnum):
    """What can be hidden of a dialogue."""

    WORDS = "words"
    """what the assistant acted on; without them it is as if nothing had been recognised"""
    OTHER_HYPOTHESES = "other hypotheses"
    """all entries of the recogniser's n-best list but the first"""
    ASR_SCORES = "recognition scores"
    NLU = "understanding"
    NLU_SCORES = "understanding scores"
    ENTITIES = "entities"
    RESPONSE = "response"
    BARGE_IN = "barge-in"
    FEEDBACK = "feedback"
    WAKE_SCORE = "wake score"
    TIMES = "times"
    ORIGIN = "device and locale"
    """of the dialogue"""
    TURN = "turn"
    """a turn before or after, with all that is in it"""


class Influence(NamedTuple):
    """What one piece of evidence did to a turn's label."""

    evidence: Evidence
    turn_index: int
    """the turn that it is of"""
    defect: float
    """P(defect) with it less P(defect) without it: above 0 where it speaks for a defect"""
    failure_point: float
    """the same of the probability of the failure point that was chosen"""


class Explanation(NamedTuple):
    """Why a turn has its failure point."""

    dialogue_id: str
    turn_index: int
    failure_point: FailurePoint
    """the one that was chosen"""
    failure_point_probability: float
    defect_probability: float
    influences: tuple[Influence, ...]
    """the largest change of P(defect) first; evidence that the log does not have is not among them"""


def explain(model: Model, dialogue: Dialogue, turn_index: int, ontology: Ontology | None = None) -> Explanation:
    """What moved the failure point of one turn of a validated dialogue.

    `ontology` is the one that the dialogue was labelled with. Raises `IndexError` where there is no such turn.
    """
    return explain_all(model, [(dialogue, turn_index)], ontology)[0]


def explain_all(
    model: Model, turns: Sequence[tuple[Dialogue, int]], ontology: Ontology | None = None
) -> list[Explanation]:
    """The explanation of each turn, in order; all are asked of the model together.

    Turns of the same dialogue (the same object) share what they can, so ask for them in one call.
    """
    variants: dict[_Variant, Dialogue] = {}
    asked: dict[_Variant, set[int]] = {}
    hidden: list[list[_Variant]] = []
    for dialogue, index in turns:
        if not 0 <= index < len(dialogue.turns):
            raise IndexError(f"dialogue {dialogue.dialogue_id} has no turn {index}, only {len(dialogue.turns)}")
        of_turn = {_Variant(id(dialogue), None, 0): dialogue}
        for evidence, place, without in _without(dialogue, index):
            of_turn[_Variant(id(dialogue), evidence, place)] = without
        variants |= of_turn
        for variant in of_turn:
            asked.setdefault(variant, set()).add(index)
        hidden.append(list(of_turn))
    labels = _labels(model, variants, asked, ontology)
    explanations = []
    for (dialogue, index), (whole, *parts) in zip(turns, hidden, strict=True):
        told = labels[whole, index]
        influences = []
        for variant in parts:
            without_it = labels[variant, index]
            influences.append(
                Influence(
                    Evidence(variant.evidence or Evidence.TURN),
                    variant.turn_index,
                    told.defect_probability - without_it.defect_probability,
                    told.failure_point_confidence - without_it.failure_point_probabilities[told.failure_point],
                )
            )
        influences.sort(key=lambda each: (-abs(each.defect), -abs(each.failure_point)))
        explanations.append(
            Explanation(
                dialogue.dialogue_id,
                index,
                told.failure_point,
                told.failure_point_confidence,
                told.defect_probability,
                tuple(influences),
            )
        )
    return explanations


class _Variant(NamedTuple):
    """A dialogue, and what is hidden of it: nothing where `evidence` is None."""

    dialogue: int
    evidence: Evidence | None
    turn_index: int


def _labels(
    model: Model, variants: dict[_Variant, Dialogue], asked: dict[_Variant, set[int]], ontology: Ontology | None
) -> dict[tuple[_Variant, int], TurnLabels]:
    """The labels of the turns that are asked for, by the indexes that they have where nothing is hidden.

    A group at a time, so that no more is kept: each variant is a whole dialogue.
    """
    kept = {}
    names = iter(variants)
    for group in groups(list(variants.values()), GROUP_TURNS):
        for variant, labels in zip(islice(names, len(group)), model.label(group, ontology), strict=True):
            for index in asked[variant]:
                # A turn that is gone moves those after it.
                shift = variant.evidence is Evidence.TURN and variant.turn_index < index
                kept[variant, index] = labels.turns[index - shift]
    return kept


def _without(dialogue: Dialogue, index: int) -> Iterator[tuple[Evidence, int, Dialogue]]:
    """The dialogue without each thing that it has: what, of which turn, and the rest."""
    replace = msgspec.structs.replace
    turns = dialogue.turns
    for evidence, hide in _HIDE.items():
        hidden = hide(turns[index])
        if hidden != turns[index]:
            yield evidence, index, replace(dialogue, turns=[*turns[:index], hidden, *turns[index + 1 :]])
    if dialogue.device is not None or dialogue.locale is not None:
        yield Evidence.ORIGIN, index, replace(dialogue, device=None, locale=None)
    for other in range(max(index - REACH, 0), min(index + REACH + 1, len(turns))):
        if other != index:
            yield Evidence.TURN, other, replace(dialogue, turns=[*turns[:other], *turns[other + 1 :]])


def _without_asr_scores(turn: Turn) -> Turn:
    return msgspec.structs.replace(turn, asr=[msgspec.structs.replace(each, score=None) for each in turn.asr])


def _without_nlu_scores(turn: Turn) -> Turn:
    return msgspec.structs.replace(turn, nlu=[msgspec.structs.replace(each, score=None) for each in turn.nlu])


def _without_words(turn: Turn) -> Turn:
    # The first hypothesis is the same words.
    heard = [msgspec.structs.replace(each, text="") for each in turn.asr[:1]]
    return msgspec.structs.replace(turn, text="", asr=[*heard, *turn.asr[1:]])


def _setting(**fields: object) -> Callable[[Turn], Turn]:
    return lambda turn: msgspec.structs.replace(turn, **fields)


_HIDE: dict[Evidence, Callable[[Turn], Turn]] = {
    Evidence.WORDS: _without_words,
    Evidence.OTHER_HYPOTHESES: lambda turn: msgspec.structs.replace(turn, asr=turn.asr[:1]),
    Evidence.ASR_SCORES: _without_asr_scores,
    Evidence.NLU: _setting(nlu=[]),
    Evidence.NLU_SCORES: _without_nlu_scores,
    Evidence.ENTITIES: _setting(entities=[]),
    Evidence.RESPONSE: _setting(response=None),
    Evidence.BARGE_IN: _setting(barge_in=None),
    Evidence.FEEDBACK: _setting(feedback=None),
    Evidence.WAKE_SCORE: _setting(wake_score=None),
    Evidence.TIMES: _setting(started_at=None, ended_at=None),
}
