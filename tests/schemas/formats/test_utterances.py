"""`utterances`: who said what becomes requests with their responses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


def test_what_is_said_at_once_is_one_request_and_one_response(dialogues: Dialogues) -> None:
    lamps = dialogues("utterances")[0]
    said = [(turn.text, turn.response.text if turn.response else None) for turn in lamps.turns]
    assert said == [("Turn on the lamp.", "Which one? There are two."), ("Both", None)]
    assert lamps.opening == "Good evening."


def test_a_conversation_without_an_id_has_one_that_follows_from_what_was_said(dialogues: Dialogues) -> None:
    (first, second), again = dialogues("utterances"), dialogues("utterances")
    assert first.dialogue_id == "lamps"
    assert second.dialogue_id == again[1].dialogue_id
    assert len(second.dialogue_id) == 32


def test_a_conversation_in_which_the_user_says_nothing_is_rejected() -> None:
    log_format = get_format("utterances")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(b'{"turns": [{"speaker": "system", "text": "Hello?"}]}')
    assert error.value.reason is RejectReason.NO_TURNS
