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


def parse(format_name: str, line: bytes) -> Dialogue:
    log_format = get_format(format_name)
    assert isinstance(log_format, DialogueFormat)
    (dialogue,) = log_format.parse(line)
    return dialogue


@pytest.mark.parametrize(
    ("format_name", "name", "dialogues", "turns"),
    [
        ("dstc2", "dstc2/train.jsonl.gz", 1_612, 11_677),
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
