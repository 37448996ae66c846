"""`slurp`: recordings with what an assistant made of them, and annotated sentences."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue, FailurePoint
from schemas.rejects import RecordError, RejectReason

Dialogues = Callable[[str], list[Dialogue]]


def test_a_recording_has_what_was_recognised_and_understood(dialogues: Dialogues) -> None:
    dialogue = dialogues("slurp")[0]
    turn = dialogue.turns[0]
    assert dialogue.dialogue_id == "audio-1.flac"
    assert [each.text for each in turn.asr] == ["turn the why fi on"]
    hypothesis = turn.nlu[0]
    assert (hypothesis.domain, hypothesis.intent) == ("iot", "iot_wemo_on")
    assert [(slot.value, slot.start, slot.end) for slot in hypothesis.slots] == [("fi", 13, 15)]


def test_a_recording_has_its_gold_frame_and_failure_point(dialogues: Dialogues) -> None:
    annotation = dialogues("slurp")[0].turns[0].annotation
    assert annotation is not None
    assert annotation.transcript == "turn the wifi on"
    assert annotation.failure_point is FailurePoint.ASR
    assert annotation.slots is not None
    assert [(slot.value, slot.start) for slot in annotation.slots] == [("wifi", None)]


def test_a_sentence_is_typed_text(dialogues: Dialogues) -> None:
    dialogue = dialogues("slurp")[1]
    assert dialogue.dialogue_id == "slurp-16"
    assert dialogue.turns[0].asr == []
    assert dialogue.turns[0].nlu == []


def test_the_spans_of_a_sentence_come_of_its_tokens(dialogues: Dialogues) -> None:
    annotation = dialogues("slurp")[1].turns[0].annotation
    assert annotation is not None
    assert annotation.intent == "alarm_set"
    assert annotation.slots is not None
    assert [(slot.name, slot.value, slot.start, slot.end) for slot in annotation.slots] == [
        ("date", "friday", 11, 17),
        ("time", "at rihana o'clock", 18, 35),
        ("person", "rihanna", None, None),
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"recording": "a.flac"}, RejectReason.MISSING_FIELD),
        ({"recording": "a.flac", "asr": "on", "gold": {"failure_point": "cat"}}, RejectReason.WRONG_TYPE),
        (
            {"slurp_id": 1, "sentence": "", "scenario": "a", "action": "b", "tokens": [], "entities": []},
            RejectReason.MISSING_TEXT,
        ),
        (
            {"slurp_id": 1, "sentence": "on", "scenario": "a", "action": "b", "entities": [{"type": "c", "span": [0]}]},
            RejectReason.INVALID_VALUE,
        ),
    ],
)
def test_a_bad_record_is_rejected(record: object, reason: RejectReason) -> None:
    log_format = get_format("slurp")
    assert isinstance(log_format, DialogueFormat)
    with pytest.raises(RecordError) as error:
        log_format.parse(json.dumps(record).encode())
    assert error.value.reason == reason
