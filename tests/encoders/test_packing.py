"""Sequences packed end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import RobertaConfig, RobertaModel

from encoders.packing import LENGTHS, SIZES, TOKEN_BUDGET, packs
from encoders.text import Segment, TokenizedTurn
from encoders.turn import PackedTurns, TurnEncoder, TurnEncoderConfig

CPU = torch.device("cpu")
PAD = 1
ROBERTA = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 258,
    "type_vocab_size": 1,
    "pad_token_id": PAD,
}


@pytest.fixture(scope="module")
def encoder() -> TurnEncoder:
    torch.manual_seed(0)
    encoder = TurnEncoder(TurnEncoderConfig(ROBERTA)).eval()
    torch.nn.init.normal_(encoder.segments.weight)
    return encoder


def _turns(count: int, seed: int = 0) -> list[TokenizedTurn]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTHS[-1], count)
    return [
        TokenizedTurn(
            rng.integers(5, 100, size), rng.integers(0, len(Segment), size), np.zeros((0, 2), np.int64), False
        )
        for size in lengths
    ]


def _states(encoder: TurnEncoder, turns: list[TokenizedTurn]) -> list[Tensor]:
    """(length, E) of each turn, encoded together."""
    states: list[Tensor] = [torch.empty(0)] * len(turns)
    with torch.inference_mode():
        for indexes, packing in packs([len(turn.ids) for turn in turns], CPU):
            packed = encoder.tokens(PackedTurns.of([turns[index] for index in indexes], packing, PAD))
            for index, start in zip(indexes, packing.starts, strict=True):
                states[index] = packed[start : start + len(turns[index].ids)]
    return states


def test_packed_turns_are_encoded_as_transformers_encodes_each_alone(encoder: TurnEncoder) -> None:
    plain = RobertaModel(RobertaConfig(**ROBERTA), add_pooling_layer=False).eval()
    plain.load_state_dict(encoder.words.state_dict())
    turns = _turns(40)
    for turn, ours in zip(turns, _states(encoder, turns), strict=True):
        with torch.inference_mode():
            words = plain.embeddings.word_embeddings(torch.from_numpy(turn.ids))
            embedded = words + encoder.segments(torch.from_numpy(turn.segments))
            theirs = plain(inputs_embeds=embedded[None]).last_hidden_state[0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_others_in_the_pack_change_no_bit(encoder: TurnEncoder, dtype: torch.dtype) -> None:
    encoder.words.to(dtype)
    try:
        turns = _turns(40)
        together = _states(encoder, turns)
        assert all(torch.equal(_states(encoder, [turn])[0], state) for turn, state in zip(turns, together, strict=True))
    finally:
        encoder.words.float()


def test_the_mean_is_over_the_fields_own_tokens(encoder: TurnEncoder) -> None:
    turns = _turns(30)
    states = _states(encoder, turns)
    with torch.inference_mode():
        for indexes, packing in packs([len(turn.ids) for turn in turns], CPU):
            packed = PackedTurns.of([turns[index] for index in indexes], packing, PAD)
            pooled = encoder.pool(encoder.tokens(packed), packed)
            for index, found in zip(indexes, pooled, strict=True):
                is_response = torch.from_numpy(turns[index].segments == Segment.RESPONSE)
                expected = states[index][is_response].mean(0) if is_response.any() else torch.zeros(32)
                torch.testing.assert_close(found[-32:], expected)


@given(st.lists(st.integers(1, LENGTHS[-1]), max_size=100))
def test_every_sequence_is_packed_once_within_the_budget(lengths: list[int]) -> None:
    seen: list[int] = []
    for indexes, packing in packs(lengths, CPU):
        seen += indexes.tolist()
        assert packing.size in SIZES
        assert sum(lengths[index] for index in indexes) <= packing.size <= TOKEN_BUDGET
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize("length", [0, LENGTHS[-1] + 1])
def test_what_cannot_be_packed_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"empty|above the ladder"):
        list(packs([3, length], CPU))
