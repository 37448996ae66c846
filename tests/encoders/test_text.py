"""A turn as one sequence of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from encoders.packing import LENGTHS
from encoders.text import LIMITS, Segment, TokenizedTurn, TurnTokenizer
from labelers.model import TOKENIZER
from schemas.log import AsrHypothesis, Dialogue, EntityResolution, NluHypothesis, Response, Slot, Turn, validate


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model_dir / TOKENIZER))


def _tokenize(tokenizer: Tokenizer, *turns: Turn) -> list[TokenizedTurn]:
    (tokenized,) = TurnTokenizer(tokenizer).dialogues([validate(Dialogue(dialogue_id="a", turns=list(turns)))])
    return tokenized


def _said(tokenized: TokenizedTurn, tokenizer: Tokenizer, segment: Segment) -> str:
    ids = [index for index, of in zip(tokenized.ids, tokenized.segments, strict=True) if of == segment]
    return tokenizer.decode(ids).replace(" ", "")


FULL = Turn(
    text="call anna",
    asr=[AsrHypothesis(text="call anna"), AsrHypothesis(text="call hanna")],
    nlu=[NluHypothesis(domain="phone", intent="CallPerson", slots=[Slot(name="contact", value="anna")])],
    entities=[EntityResolution(slot="contact", value="anna", name="Anna K")],
    response=Response(text="calling", action="startCall"),
)


def test_each_field_has_its_segment(tokenizer: Tokenizer) -> None:
    tokenized = _tokenize(tokenizer, FULL, Turn(text="no"))[0]
    said = {segment: _said(tokenized, tokenizer, segment) for segment in Segment}
    assert said == {
        Segment.USER: "callanna",
        Segment.ALTERNATIVES: "callhanna",
        Segment.UNDERSTOOD: "phonecallperson:contact=anna",
        Segment.ENTITIES: "contact=annaisannak",
        Segment.RESPONSE: "startcall:calling",
    }


def test_a_field_that_the_log_lacks_leaves_no_token(tokenizer: Tokenizer) -> None:
    (tokenized,) = _tokenize(tokenizer, Turn(text="hi"))
    assert set(tokenized.segments.tolist()) == {Segment.USER}
    assert tokenizer.decode(tokenized.ids.tolist(), skip_special_tokens=False).split() == ["<s>", "hi", "</s>"]


def test_an_action_without_words_is_read(tokenizer: Tokenizer) -> None:
    (tokenized,) = _tokenize(tokenizer, Turn(text="hi", response=Response(action="start_call")))
    assert _said(tokenized, tokenizer, Segment.RESPONSE) == "startcall"


@pytest.mark.parametrize(
    "text",
    [
        "play ÀÉî now",
        "a\x00b \x1b[31m c",
        "\u202eplay\u202c \u200fnow",
        "half \ud83d a smile",
        "🙂 play 🙂",
        "İstanbul please",
        "  two  spaces ",
    ],
)
def test_user_offsets_are_characters_of_the_text(text: str, tokenizer: Tokenizer) -> None:
    (tokenized,) = _tokenize(tokenizer, Turn(text=text))
    letters = [text[start:end] for start, end in tokenized.user_offsets]
    assert "".join(letters) == "".join(text[start] for start, _ in tokenized.user_offsets)
    last = [letter for letter in text if letter.isascii() and letter.isalpha()][-1]
    assert last in letters
    assert not tokenized.shortened


def test_an_empty_request_has_no_user_tokens(tokenizer: Tokenizer) -> None:
    (tokenized,) = _tokenize(tokenizer, Turn(asr=[AsrHypothesis(text="")]))
    assert tokenized.user_offsets.shape == (0, 2)
    assert len(tokenized.ids) == 2


def test_a_long_request_keeps_its_head_and_tail_and_says_so(tokenizer: Tokenizer) -> None:
    text = "x " * 49_000 + "end of it"
    (tokenized,) = _tokenize(tokenizer, Turn(text=text))
    assert tokenized.shortened
    assert len(tokenized.ids) == LIMITS[Segment.USER] + 2
    assert _said(tokenized, tokenizer, Segment.USER).endswith("endofit")
    assert all(text[start:end] == "x" for start, end in tokenized.user_offsets)


def test_the_tail_of_a_cut_text_has_no_offsets(tokenizer: Tokenizer) -> None:
    (tokenized,) = _tokenize(tokenizer, Turn(text="x" * 100_000))
    assert tokenized.shortened
    assert len(tokenized.user_offsets) == 0


def test_no_turn_is_longer_than_the_longest_batch(tokenizer: Tokenizer) -> None:
    long = "a " * 500
    turn = Turn(
        text=long,
        asr=[AsrHypothesis(text=long), AsrHypothesis(text=long + "b")],
        nlu=[NluHypothesis(intent=long, slots=[Slot(name="n", value=long)])],
        entities=[EntityResolution(slot="n", value=long)],
        response=Response(text=long),
    )
    tokenized = _tokenize(tokenizer, turn, turn)
    assert max(len(each.ids) for each in tokenized) <= LENGTHS[-1]


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="has no <s> token: a RoBERTa tokenizer is needed"):
        TurnTokenizer(Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")))
