"""A turn as one sequence of tokens.

- The fields of a turn stand one after the other, each closed by `</s>`; a field that the log lacks is left out,
  and a segment id says which field a token is of, so nothing is inferred from what is missing.
- The user's words come first, at positions 1 … U, so that the slot labeler finds them without a search.
- What was understood is written in words: `restaurant inform: food = thai, area = north`; so is what was done, before
  what was said: `light off: Okay, office lamp off.`
- A field longer than its limit keeps its head and its tail; the turn is then marked as shortened, and counted.
- Every distinct string is tokenised once per call: assistants hear and say the same sentences all day.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from schemas.log import Dialogue, NluHypothesis, Response, Turn
from schemas.ontology import words


class Segment(IntEnum):
    """Which field of the turn a token is of. `Segment.USER` also marks `<s>`."""

    USER = 0
    ALTERNATIVES = 1
    UNDERSTOOD = 2
    ENTITIES = 3
    RESPONSE = 4


LIMITS = {
    Segment.USER: 64,
    Segment.ALTERNATIVES: 32,
    Segment.UNDERSTOOD: 40,
    Segment.ENTITIES: 24,
    Segment.RESPONSE: 40,
}
"""Tokens a field may have; at most 206 a turn with the special tokens."""

CHARACTER_LIMIT = 4_096
"""Characters of a field that are tokenised, half from its head and half from its tail."""


class TokenizedTurn(NamedTuple):
    """One turn of L tokens, U of them the user's."""

    ids: npt.NDArray[np.int64]
    """(L,)"""
    segments: npt.NDArray[np.int64]
    """(L,), values of `Segment`"""
    user_offsets: npt.NDArray[np.int64]
    """(U, 2), first character and one past the last of each user token in the turn's text"""
    shortened: bool
    """a field was longer than its limit"""


class TurnTokenizer:
    """Turns dialogues into token sequences.

    `tokenizer` is any tokenizer of the `tokenizers` library whose vocabulary has the special tokens of RoBERTa.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._begin, self._end, self.pad_id, self.mask_id = (
            self._special(token) for token in ("<s>", "</s>", "<pad>", "<mask>")
        )

    def _special(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"The tokenizer has no {token} token: a RoBERTa tokenizer is needed.")
        return int(found)

    def dialogues(self, dialogues: Sequence[Dialogue]) -> list[list[TokenizedTurn]]:
        """Every turn of every dialogue, in order."""
        fields = [[_fields(turn) for turn in dialogue.turns] for dialogue in dialogues]
        distinct = {text: None for turns in fields for turn in turns for _, text in turn}
        encodings = self._encode(list(distinct))
        return [[self._join(turn, encodings) for turn in turns] for turns in fields]

    def names(self, texts: Sequence[str]) -> list[TokenizedTurn]:
        """Plain texts (names and descriptions of an ontology) as sequences of their own."""
        encodings = self._encode(list(dict.fromkeys(texts)))
        return [self._join([(Segment.UNDERSTOOD, text)], encodings) for text in texts]

    def _encode(self, texts: list[str]) -> dict[str, tuple[Encoding, bool]]:
        clipped = [_clip(text) for text in texts]
        encodings = self.tokenizer.encode_batch(clipped, add_special_tokens=False)
        return {
            text: (encoding, len(short) < len(text))
            for text, short, encoding in zip(texts, clipped, encodings, strict=True)
        }

    def _join(self, fields: list[tuple[Segment, str]], encodings: dict[str, tuple[Encoding, bool]]) -> TokenizedTurn:
        ids = [self._begin]
        segments: list[int] = [Segment.USER]
        offsets: list[tuple[int, int]] = []
        shortened = False
        for segment, text in fields:
            encoding, clipped = encodings[text]
            field_ids, limit = encoding.ids, LIMITS[segment]
            keep = slice(None)
            if len(field_ids) > limit:
                # Both ends say more of a request than its middle: how it was put, and what it ended on.
                tail = limit // 4
                field_ids = field_ids[: limit - tail] + field_ids[-tail:]
                keep = slice(0, limit - tail)
            if segment is Segment.USER:
                offsets = list(encoding.offsets[keep])
                if clipped:
                    # Offsets past the cut are those of the shortened text, not of the request.
                    offsets = [pair for pair in offsets if pair[1] <= CHARACTER_LIMIT // 2]
            shortened |= clipped or len(field_ids) < len(encoding.ids)
            ids += [*field_ids, self._end]
            segments += [segment] * (len(field_ids) + 1)
        return TokenizedTurn(
            np.array(ids, dtype=np.int64),
            np.array(segments, dtype=np.int64),
            np.array(offsets, dtype=np.int64).reshape(-1, 2),
            shortened,
        )


def _clip(text: str) -> str:
    # Lone surrogates are legal in JSON and in Python, but not in the UTF-8 that the tokenizer takes. They are
    # replaced by one character each, so that offsets stay those of the text.
    if len(text) > CHARACTER_LIMIT:
        text = text[: CHARACTER_LIMIT // 2] + text[-CHARACTER_LIMIT // 2 :]
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")


def _fields(turn: Turn) -> list[tuple[Segment, str]]:
    heard = [each.text for each in turn.asr[1:4] if each.text != turn.text]
    fields = [
        (Segment.USER, turn.text or ""),
        (Segment.ALTERNATIVES, " / ".join(heard)),
        (Segment.UNDERSTOOD, " / ".join(_frame(each) for each in turn.nlu[:2])),
        (Segment.ENTITIES, _entities(turn)),
        (Segment.RESPONSE, _response(turn.response) if turn.response else ""),
    ]
    return [(segment, text) for segment, text in fields if segment is Segment.USER or text]


def _frame(hypothesis: NluHypothesis) -> str:
    slots = ", ".join(f"{words(slot.name)} = {slot.value}" for slot in hypothesis.slots)
    intent = " ".join(words(name) for name in (hypothesis.domain, hypothesis.intent) if name)
    return f"{intent}: {slots}" if slots else intent


def _entities(turn: Turn) -> str:
    return ", ".join(
        f"{words(each.slot)} = {each.value or ''} is {each.name or each.entity_id or 'nothing'}"
        for each in turn.entities[:3]
    )


def _response(response: Response) -> str:
    done = words(response.action) if response.action else ""
    return ": ".join(filter(None, (done, response.text)))
