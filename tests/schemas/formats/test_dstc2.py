"""`dstc2`: calls to a restaurant assistant."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue, FailurePoint
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


def test_the_response_to_a_request_is_the_next_prompt(dialogues: Dialogues) -> None:
    dialogue = dialogues("dstc2")[0]
    assert dialogue.opening == "Hello. How may I help you?"
    response = dialogue.turns[0].response
    assert response is not None
    assert (response.text, response.action) == ("What part of town?", "request")
    assert dialogue.turns[1].response is None


def test_the_n_best_lists_keep_their_order_and_scores(dialogues: Dialogues) -> None:
    turn = dialogues("dstc2")[0].turns[0]
    assert [(each.text, each.score) for each in turn.asr] == [("thai food", -0.5), ("tie food", -2.0)]
    assert [(each.intent, each.score) for each in turn.nlu] == [("inform", 0.9), ("none", 0.1)]
    slot = turn.nlu[0].slots[0]
    assert (slot.name, slot.value, slot.start, slot.end) == ("food", "thai", 0, 4)


def test_an_aborted_prompt_is_a_barge_in_on_the_turn_that_it_answers(dialogues: Dialogues) -> None:
    assert dialogues("dstc2")[0].turns[0].barge_in is True


def test_times_count_from_the_start_of_the_call(dialogues: Dialogues) -> None:
    turn = dialogues("dstc2")[0].turns[0]
    assert turn.started_at == dt.datetime(2013, 2, 13, 10, 30, 3, 500_000, tzinfo=dt.UTC)
    assert turn.ended_at == dt.datetime(2013, 2, 13, 10, 30, 5, tzinfo=dt.UTC)


def test_a_turn_in_which_nothing_was_heard_is_kept(dialogues: Dialogues) -> None:
    turn = dialogues("dstc2")[0].turns[1]
    assert turn.text == ""
    assert turn.annotation is not None
    assert turn.annotation.failure_point is FailurePoint.WAKE


def test_the_caller_says_whether_the_call_succeeded(dialogues: Dialogues) -> None:
    dialogue = dialogues("dstc2")[0]
    assert dialogue.feedback is not None
    assert dialogue.feedback.success is True


def test_a_call_without_labels_has_no_annotation(dialogues: Dialogues) -> None:
    dialogue = dialogues("dstc2")[1]
    assert dialogue.annotation is None
    assert dialogue.turns[0].annotation is None


def test_labels_that_miss_a_turn_are_rejected(examples: Callable[[str], list[bytes]]) -> None:
    record = json.loads(examples("dstc2")[0])
    del record["label"]["turns"][1]
    log_format = get_format("dstc2")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError, match="label has 1 turns, the log has 2") as error:
        log_format.parse(json.dumps(record).encode())
    assert error.value.reason == RejectReason.INVALID_VALUE
