"""The formats of public data sets, over the real files; the same readings counted in another way."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.formats import DialogueFormat, get_format
from schemas.log import Dialogue
from schemas.rejects import RecordError, RejectReason

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def lines(name: str) -> Iterator[bytes]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not in ../shared/data")
    with gzip.open(path) as file:
        yield from file


def document(name: str) -> Any:
    return json.loads(b"".join(lines(name)))


def parse(format_name: str, line: bytes) -> Dialogue:
    log_format = get_format(format_name)
    assert isinstance(log_format, DialogueFormat)
    (dialogue,) = log_format.parse(line)
    return dialogue


@pytest.mark.parametrize(
    ("format_name", "name", "dialogues", "turns"),
    [
        ("dbdc3", "dbdc3/dbdc3_revised_en_dev.jsonl.gz", 415, 4_174),
        ("dstc2", "dstc2/train.jsonl.gz", 1_612, 11_677),
        ("frames", "frames/frames_dev.jsonl.gz", 123, 982),
        ("frames", "frames/frames_train.jsonl.gz", 1_108, 8_376),
        ("sgd", "sgd/sgd_dev.jsonl.gz", 2_482, 24_363),
        ("slurp", "slurp/recordings_a.jsonl.gz", 5_194, 5_194),
        ("slurp", "slurp/devel.jsonl.gz", 2_033, 2_033),
    ],
)
def test_every_record_is_read(format_name: str, name: str, dialogues: int, turns: int) -> None:
    found = [len(parse(format_name, line).turns) for line in lines(name)]
    assert (len(found), sum(found)) == (dialogues, turns)


def test_star_is_read_but_for_dialogues_in_which_the_user_never_spoke() -> None:
    for line in lines("star/star_dev.jsonl.gz"):
        utterances = [
            event["Text"]
            for event in json.loads(line)["Events"]
            if event["Agent"] == "User" and event["Action"] == "utter"
        ]
        if utterances:
            assert [turn.text for turn in parse("star", line).turns] == utterances
        else:
            with pytest.raises(RecordError) as error:
                parse("star", line)
            assert error.value.reason == RejectReason.NO_TURNS


def test_sgd_goals_start_where_an_intent_becomes_active() -> None:
    for line in lines("sgd/sgd_dev.jsonl.gz"):
        started, seen = [], set()
        for turn in parse("sgd", line).turns:
            assert turn.annotation is not None
            started.append(turn.annotation.goal_id not in seen)
            seen.add(turn.annotation.goal_id)
        assert started[1:] == newly_active(json.loads(line))[1:]


def newly_active(dialogue: dict[str, Any]) -> list[bool]:
    """Whether a user turn has an active intent, NONE aside, that the user turn before it has not."""
    active = [
        {(frame["service"], frame["state"]["active_intent"]) for frame in turn["frames"]}
        for turn in dialogue["turns"]
        if turn["speaker"] == "USER"
    ]
    named = [{intent for intent in each if intent[1] != "NONE"} for each in active]
    return [bool(after - before) for before, after in zip([set(), *named], named, strict=False)]


def test_slurp_spans_have_the_text_of_their_slot() -> None:
    for line in lines("slurp/recordings_a.jsonl.gz"):
        turn = parse("slurp", line).turns[0]
        assert turn.text is not None
        for slot in turn.nlu[0].slots:
            assert turn.text[slot.start : slot.end].lower() == slot.value.lower()


def goals(dialogue: Dialogue) -> list[str | None]:
    return [turn.annotation.goal_id if turn.annotation else None for turn in dialogue.turns]


def test_frames_goals_are_the_active_frames_of_the_user() -> None:
    for line in lines("frames/frames_dev.jsonl.gz"):
        turns = json.loads(line)["turns"]
        active = [str(turn["labels"]["active_frame"]) for turn in turns if turn["author"] == "user"]
        assert goals(parse("frames", line)) == active


def test_multiwoz_turns_have_the_domain_of_the_only_state_that_changes() -> None:
    logs = {name: dialogue["log"] for name, dialogue in document("multiwoz21/val.json.gz").items()}
    multiwoz = get_format("multiwoz")
    assert isinstance(multiwoz, DialogueFormat)
    found = multiwoz.parse(b"".join(lines("multiwoz21/val.json.gz")))
    assert [dialogue.dialogue_id for dialogue in found] == list(logs)
    for dialogue in found:
        log = logs[dialogue.dialogue_id]
        assert [turn.text for turn in dialogue.turns] == [each["text"] for each in log[::2]]
        states = [wanted(each["metadata"]) for each in log[1::2]]
        for turn, before, after in zip(dialogue.turns, [set(), *states], states, strict=False):
            changed = {domain for domain, _, _ in after - before}
            assert turn.annotation is not None
            assert len(changed) != 1 or {turn.annotation.domain} == changed


def wanted(metadata: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (domain, slot, value)
        for domain, state in metadata.items()
        for part in ("semi", "book")
        for slot, value in state[part].items()
        if slot != "booked" and value not in ("", "none", "not mentioned")
    }


def test_tiage_goals_change_where_the_topic_of_the_first_speaker_does() -> None:
    for record in document("segmentation/tiage_dev.json.gz"):
        ends = [sum(record["segments"][: topic + 1]) for topic in range(len(record["segments"]))]
        topics = [sum(end <= spoken for end in ends) for spoken in range(0, len(record["utterances"]), 2)]
        assert goals(parse("tiage", json.dumps(record).encode())) == [str(topic) for topic in topics]


def test_betold_calls_fail_where_the_caller_gave_up() -> None:
    calls = document("betold/BETOLD_valid.json.gz")
    found = [parse("betold", json.dumps(call).encode()) for call in calls]
    assert [each.annotation.success for each in found if each.annotation] == [
        call["LUHF"] == "not_luhf" for call in calls
    ]


def test_dbdc3_responses_have_the_ratings_of_thirty_people() -> None:
    for line in lines("dbdc3/dbdc3_revised_en_dev.jsonl.gz"):
        said = [each for each in json.loads(line)["turns"] if each["annotations"]]
        marks = [sorted("XTO".index(each["breakdown"]) / 2 for each in one["annotations"]) for one in said]
        turns = [turn for turn in parse("dbdc3", line).turns if turn.annotation]
        assert [turn.response and turn.response.text for turn in turns] == [each["utterance"] for each in said]
        assert [sorted(turn.annotation.ratings or []) for turn in turns if turn.annotation] == marks
        assert {len(each) for each in marks} == {30}
