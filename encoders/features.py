"""What is known of a turn besides its words: numbers and categories, each with an explicit *missing*.

`turn_features` gives one row a turn. A number that the log lacks is NaN, a category that it lacks is 0; the
encoder has a parameter of its own for either (`encoders.turn.FeatureEncoder`). Numbers are raw, in the units of
the log: the encoder bins them by the quantiles of the training logs, so nothing needs scaling.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from encoders import grounding
from encoders.grounding import GROUNDING, Grounding
from encoders.hypotheses import Hypotheses, Pair, clip, posterior, response_text
from schemas.log import AsrHypothesis, Dialogue, EntityResolution, NluHypothesis, Turn

MISSING = math.nan
CATEGORY_BUCKETS = 1024
"""Categories are hashed into this many ids; 0 is *missing*."""

NUMBERS = (
    "asr_score",
    "asr_margin",
    "asr_posterior",
    "asr_entropy",
    "asr_hypotheses",
    "asr_agreement",
    "asr_empty_rank",
    "nlu_score",
    "nlu_margin",
    "nlu_entropy",
    "nlu_hypotheses",
    "nlu_slots",
    "nlu_intent_mass",
    "er_score",
    "er_margin",
    "er_candidates",
    "wake_score",
    "text_words",
    "text_characters_per_word",
    "response_words",
    "speech_seconds",
    "words_per_second",
    "seconds_since_previous",
    "seconds_to_next",
    "slot_values_in_text",
    "slot_values_in_alternatives",
    "slot_values_in_response",
    "text_in_response",
    "text_in_prompt",
    "text_like_previous",
    "text_like_next",
    "text_like_next_partial",
    "text_like_second_next",
    "nlu_like_previous",
    "nlu_like_next",
    "response_like_previous",
    "response_like_next",
    "position",
    "turns_left",
    "barge_in",
    "barge_in_previous",
    "feedback",
    "slot_mass",
    "other_slot_mass",
    "no_slots_mass",
    "frame_mass",
    "slot_values_mass_in_asr",
    "other_slot_mass_in_response",
    "slot_values_in_prompt",
    "slots_said_before",
    "slots_in_next",
    "slot_values_in_next_response",
    "next_slots",
    "next_slot_mass_before",
    "next_slot_values_mass_in_asr",
    "next_slot_values_in_response",
    "asr_score_previous",
    "asr_score_next",
    "nlu_score_next",
    *GROUNDING,
)
CATEGORIES = (
    "domain",
    "intent",
    "previous_intent",
    "next_intent",
    "action",
    "previous_action",
    "next_action",
    "status",
    "device",
    "language",
)


class TurnFeatures(NamedTuple):
    """Features of T turns."""

    numbers: npt.NDArray[np.float32]
    """(T, len(NUMBERS)), NaN where missing."""
    categories: npt.NDArray[np.int64]
    """(T, len(CATEGORIES)), 0 where missing."""


def turn_features(dialogue: Dialogue) -> TurnFeatures:
    """Features of every turn of a validated dialogue, in order."""
    hypotheses = [Hypotheses.of(turn) for turn in dialogue.turns]
    grounded = [Grounding.of(turn) for turn in dialogue.turns]
    said: set[Pair] = set()
    rows = []
    for index, each in enumerate(hypotheses):
        rows.append(_Row(dialogue, hypotheses, index, sum(pair in said for pair in each.first)))
        said |= each.first
    numbers = np.array([row.numbers() + grounding.numbers(grounded, index) for index, row in enumerate(rows)])
    # A score can be any finite double: one that is too large for float32 is as good as any other such. The quarter
    # lets the encoder take differences of two.
    limit = np.finfo(np.float32).max / 4
    numbers = np.clip(numbers, -limit, limit).astype(np.float32)
    categories = np.array([row.categories() for row in rows], dtype=np.int64)
    return TurnFeatures(numbers, categories)


def category_id(field: str, value: str | None) -> int:
    """A stable id in 1 … CATEGORY_BUCKETS - 1, whatever the process; 0 for a missing value."""
    if not value:
        return 0
    digest = zlib.crc32(f"{field}={value.lower()}".encode(errors="replace"))
    return 1 + digest % (CATEGORY_BUCKETS - 1)


class _Row:
    """The features of one turn; it can see the turns around it."""

    def __init__(self, dialogue: Dialogue, hypotheses: Sequence[Hypotheses], index: int, said_before: int) -> None:
        turns = dialogue.turns
        self.hypotheses = hypotheses[index]
        self.next_hypotheses = hypotheses[index + 1] if index + 1 < len(turns) else None
        self.said_before = said_before
        """slots of the first hypothesis that earlier turns had"""
        self.dialogue = dialogue
        self.index = index
        self.turn = turns[index]
        self.previous = turns[index - 1] if index else None
        self.next = turns[index + 1] if index + 1 < len(turns) else None
        self.second_next = turns[index + 2] if index + 2 < len(turns) else None
        self.text = clip(self.turn.text)
        self.response = response_text(self.turn)
        self.prompt = response_text(self.previous) if self.previous else (dialogue.opening or "")

    def numbers(self) -> list[float]:
        turn, text, response = self.turn, self.text, self.response
        asr = [each.score for each in turn.asr if each.score is not None]
        nlu = [each.score for each in turn.nlu if each.score is not None]
        er = [each.score for each in turn.entities if each.score is not None]
        asr_weights, nlu_weights = posterior(asr), posterior(nlu)
        # What is first in a list need not have a score where what follows has.
        asr_score, nlu_score, er_score = _first_score(turn.asr), _first_score(turn.nlu), _first_score(turn.entities)
        alternatives = [clip(each.text) for each in turn.asr[1:6]]
        top = turn.nlu[0] if turn.nlu else None
        values = [slot.value for slot in top.slots if slot.value] if top else []
        words = len(text.split())
        seconds = _seconds(turn.started_at, turn.ended_at)
        prompt = self.prompt
        return [
            asr_score,
            asr_score - asr[1] if len(asr) > 1 else MISSING,
            MISSING if math.isnan(asr_score) else asr_weights[0],
            _entropy(asr_weights) if asr else MISSING,
            len(turn.asr) if turn.asr else MISSING,
            _mean([fuzz.ratio(text, each) for each in alternatives]),
            next((rank for rank, each in enumerate(turn.asr) if not each.text), len(turn.asr)) if turn.asr else MISSING,
            nlu_score,
            nlu_score - nlu[1] if len(nlu) > 1 else MISSING,
            _entropy(nlu_weights) if nlu else MISSING,
            len(turn.nlu) if turn.nlu else MISSING,
            len(top.slots) if top else MISSING,
            sum(w for w, each in zip(nlu_weights, turn.nlu, strict=False) if each.intent == top.intent)
            if top and len(nlu) == len(turn.nlu)
            else MISSING,
            er_score,
            er_score - er[1] if len(er) > 1 else MISSING,
            len(turn.entities) if turn.entities else MISSING,
            turn.wake_score if turn.wake_score is not None else MISSING,
            words,
            len(text) / max(words, 1),
            len(response.split()) if response else MISSING,
            seconds,
            words / seconds if seconds > 0 else MISSING,
            _seconds(self.previous.ended_at or self.previous.started_at, turn.started_at) if self.previous else MISSING,
            _seconds(turn.ended_at or turn.started_at, self.next.started_at) if self.next else MISSING,
            _mean([float(value.lower() in text) for value in values]),
            _mean([float(any(value.lower() in each for each in alternatives)) for value in values])
            if alternatives
            else MISSING,
            _mean([float(value.lower() in response) for value in values]) if response else MISSING,
            fuzz.token_set_ratio(text, response) if text and response else MISSING,
            fuzz.token_set_ratio(text, clip(prompt)) if text and prompt else MISSING,
            fuzz.token_sort_ratio(text, clip(self.previous.text)) if self.previous else MISSING,
            fuzz.token_sort_ratio(text, clip(self.next.text)) if self.next else MISSING,
            fuzz.token_set_ratio(text, clip(self.next.text)) if self.next else MISSING,
            fuzz.token_sort_ratio(text, clip(self.second_next.text)) if self.second_next else MISSING,
            _frame_overlap(self.previous, turn),
            _frame_overlap(turn, self.next),
            fuzz.ratio(response_text(self.previous), response)
            if self.previous and response_text(self.previous) and response
            else MISSING,
            fuzz.ratio(response, response_text(self.next))
            if self.next and response_text(self.next) and response
            else MISSING,
            self.index,
            len(self.dialogue.turns) - 1 - self.index,
            _flag(turn.barge_in),
            _flag(self.previous.barge_in) if self.previous else MISSING,
            MISSING if turn.feedback is None else float(turn.feedback == "positive"),
            *self._masses(),
            _first_score(self.previous.asr) if self.previous else MISSING,
            _first_score(self.next.asr) if self.next else MISSING,
            _first_score(self.next.nlu) if self.next else MISSING,
        ]

    def _masses(self) -> list[float]:
        """What the n-best lists say together, here and in the next turn (`encoders.hypotheses`)."""
        here, following, response, prompt = self.hypotheses, self.next_hypotheses, self.response, clip(self.prompt)
        first, others = here.first, here.others
        understood = bool(here.frames)
        after = following.first if following and following.frames else None
        new = after - first if after is not None else frozenset()
        next_response = response_text(self.next)
        return [
            min((here.masses[pair] for pair in first), default=MISSING),
            max(others.values(), default=0.0) if understood else MISSING,
            here.frame_mass(frozenset()) if understood else MISSING,
            here.frame_mass(first) if understood else MISSING,
            min((here.heard(value) for _, value in first), default=MISSING) if here.texts else MISSING,
            max((mass for (_, value), mass in others.items() if value in response), default=0.0)
            if understood and response
            else MISSING,
            _mean([float(value in prompt) for _, value in first]) if prompt else MISSING,
            self.said_before / len(first) if first else MISSING,
            _mean([float(pair in after) for pair in first]) if after is not None else MISSING,
            _mean([float(value in next_response) for _, value in first]) if next_response else MISSING,
            len(after) if after is not None else MISSING,
            max((here.masses.get(pair, 0.0) for pair in new), default=0.0) if after is not None else MISSING,
            max((here.heard(value) for _, value in new), default=0.0) if after is not None and here.texts else MISSING,
            _mean([float(value in response) for _, value in new]) if response else MISSING,
        ]

    def categories(self) -> list[int]:
        previous, following, dialogue = self.previous, self.next, self.dialogue
        response = self.turn.response
        values = (
            _top(self.turn, "domain"),
            _top(self.turn, "intent"),
            _top(previous, "intent"),
            _top(following, "intent"),
            response.action if response else None,
            previous.response.action if previous and previous.response else None,
            following.response.action if following and following.response else None,
            response.status if response else None,
            dialogue.device,
            dialogue.locale.split("-")[0] if dialogue.locale else None,
        )
        # The same action or intent has the same id at this turn and at its neighbours.
        fields = (
            "domain",
            "intent",
            "intent",
            "intent",
            "action",
            "action",
            "action",
            "status",
            "device",
            "language",
        )
        return [category_id(field, value) for field, value in zip(fields, values, strict=True)]


def _top(turn: Turn | None, field: str) -> str | None:
    return getattr(turn.nlu[0], field) if turn and turn.nlu else None


def _first_score(hypotheses: Sequence[AsrHypothesis | NluHypothesis | EntityResolution]) -> float:
    score = hypotheses[0].score if hypotheses else None
    return MISSING if score is None else score


def _flag(value: bool | None) -> float:
    return MISSING if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else MISSING


def _seconds(start: object, end: object) -> float:
    return MISSING if start is None or end is None else (end - start).total_seconds()  # type: ignore[operator, no-any-return]


def _entropy(weights: Sequence[float]) -> float:
    return -sum(weight * math.log(weight) for weight in weights if weight > 0)


def _frame(hypothesis: NluHypothesis) -> set[tuple[str, str]]:
    frame = {(slot.name, slot.value) for slot in hypothesis.slots}
    return frame | {("", hypothesis.intent)} if hypothesis.intent else frame


def _frame_overlap(first: Turn | None, second: Turn | None) -> float:
    """Jaccard index of the two top frames, 0 to 1."""
    if first is None or second is None or not first.nlu or not second.nlu:
        return MISSING
    one, other = _frame(first.nlu[0]), _frame(second.nlu[0])
    return len(one & other) / len(one | other) if one | other else 1.0
