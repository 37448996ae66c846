"""Grouping turn events into dialogues."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import sessions
from pipelines.chunks import ChunkSize, SourceFile, cut
from pipelines.records import Item
from pipelines.sessions import Frame, bucket_count, partition, read_sessions, sessionise
from pipelines.staging import Staging
from schemas.formats import EventFormat, get_format
from schemas.rejects import RejectReason

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
GAP = dt.timedelta(minutes=30)


def event(session: str, minutes: float, **more: Any) -> dict[str, Any]:
    started_at = (NOON + dt.timedelta(minutes=minutes)).isoformat()
    return {"session_id": session, "started_at": started_at, "text": f"{session} at {minutes}", **more}


def group(folder: Path, *files: list[dict[str, Any]], buckets: int = 3, chunk_bytes: int = 300) -> list[Item]:
    """What comes of these files of events."""
    folder.mkdir(exist_ok=True)
    staging = Staging(str(folder / "staging"))
    turns = get_format("turns")
    assert isinstance(turns, EventFormat)
    frames: dict[int, list[Frame]] = {}
    for index, events in enumerate(files):
        path = folder / f"{index}.jsonl"
        path.write_text("\n".join(json.dumps(each) for each in events))
        source = SourceFile(index, str(path), path.stat().st_size, 0.0)
        for chunk in cut(source, staging.spool(), ChunkSize(chunk_bytes)):
            for bucket, frame in partition(chunk, turns, buckets, staging):
                frames.setdefault(bucket, []).append(frame)
    size = ChunkSize(chunk_bytes)
    return [
        item
        for bucket, some in sorted(frames.items())
        for chunk in sessionise(bucket, some, GAP, staging.spool(), size)
        for item in read_sessions(chunk)
    ]


def texts(items: list[Item]) -> dict[str, list[str | None]]:
    return {
        item.dialogue.dialogue_id: [turn.text for turn in item.dialogue.turns]
        for item in items
        if item.dialogue is not None
    }


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_events_can_be_partitioned_again(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    staging = Staging(str(tmp_path / "staging"))
    turns = get_format("turns")
    assert isinstance(turns, EventFormat)
    events = [event(f"s{number}", number) for number in range(20)]
    content = pack("\n".join(map(json.dumps, events)).encode())
    (tmp_path / "log").write_bytes(content)
    source = SourceFile(0, str(tmp_path / "log"), len(content), 0.0)
    (chunk,) = cut(source, staging.spool(), ChunkSize())
    frames = partition(chunk, turns, 3, staging)
    assert {bucket for bucket, _ in frames} == {0, 1, 2}
    assert not list((tmp_path / "staging" / "spool").glob("*"))
    assert partition(chunk, turns, 3, staging) == frames


def test_events_that_a_crash_has_damaged_are_left_anew(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "staging"))
    turns = get_format("turns")
    assert isinstance(turns, EventFormat)
    content = gzip.compress(json.dumps(event("s", 0)).encode())
    (tmp_path / "log.gz").write_bytes(content)
    source = SourceFile(0, str(tmp_path / "log.gz"), len(content), 0.0)

    def partitioned() -> list[tuple[int, Frame]]:
        (chunk,) = cut(source, staging.spool(rewrite=True), ChunkSize())
        return partition(chunk, turns, 1, staging)

    ((_, frame),) = partitioned()
    Path(frame.path).write_bytes(b"")
    assert partitioned() == [(0, frame)]
    assert Path(frame.path).stat().st_size == frame.size


@pytest.mark.parametrize("buckets", [1, 5])
def test_events_in_any_order_over_several_files_become_the_same_dialogues(tmp_path: Path, buckets: int) -> None:
    events = [event(f"s{number}", minutes) for number in range(6) for minutes in range(10)]
    in_order = texts(group(tmp_path / "a", events, buckets=buckets))
    random.Random(1).shuffle(events)
    assert in_order == {f"s{n}": [f"s{n} at {minutes}" for minutes in range(10)] for n in range(6)}
    assert texts(group(tmp_path / "b", events[:25], events[25:], buckets=buckets)) == in_order


def test_a_longer_pause_than_the_gap_starts_the_next_dialogue(tmp_path: Path) -> None:
    events = [event("s", 0), event("s", 30), event("s", 60.1), event("s", 200)]
    assert texts(group(tmp_path, events)) == {
        "s": ["s at 0", "s at 30"],
        "s#2": ["s at 60.1"],
        "s#3": ["s at 200"],
    }


def test_a_late_event_closes_the_gap_that_it_falls_into(tmp_path: Path) -> None:
    assert texts(group(tmp_path, [event("s", 0), event("s", 50)], [event("s", 25)])) == {
        "s": ["s at 0", "s at 25", "s at 50"]
    }


def test_the_first_of_several_events_with_one_id_stays(tmp_path: Path) -> None:
    first, again = event("s", 0, event_id="e", text="first"), event("s", 0, event_id="e", text="again")
    items = group(tmp_path, [first], [again, event("t", 0, event_id="e")])
    assert texts(items) == {"s": ["first"], "t": ["t at 0"]}
    (reject,) = [item.reject for item in items if item.reject is not None]
    assert (reject.reason, reject.position, Path(reject.source).name) == (RejectReason.DUPLICATE_EVENT, 1, "1.jsonl")


def test_without_an_id_only_the_same_content_is_a_duplicate(tmp_path: Path) -> None:
    items = group(tmp_path, [event("s", 0), event("s", 0), event("s", 0, text="at the same time")])
    assert texts(items) == {"s": ["s at 0", "at the same time"]}
    assert [item.reject.reason for item in items if item.reject] == [RejectReason.DUPLICATE_EVENT]


def test_a_bad_event_does_not_take_its_session_along(tmp_path: Path) -> None:
    items = group(tmp_path, [event("s", 0), {"session_id": "s", "text": "no time"}, event("s", 1)])
    assert texts(items) == {"s": ["s at 0", "s at 1"]}
    (reject,) = [item.reject for item in items if item.reject is not None]
    assert (reject.reason, reject.position) == (RejectReason.MISSING_FIELD, 2)
    assert reject.raw is not None
    assert json.loads(reject.raw)["text"] == "no time"


def test_a_session_that_is_no_dialogue_is_rejected_event_by_event(tmp_path: Path) -> None:
    events = [event("s", 0, annotation={"rephrase_of": 5}), event("s", 1)]
    rejects = [item.reject for item in group(tmp_path, events) if item.reject]
    assert [(each.position, each.reason) for each in rejects] == [
        (1, RejectReason.INVALID_VALUE),
        (2, RejectReason.INVALID_VALUE),
    ]


def test_a_bucket_that_takes_several_passes_gives_the_same_dialogues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event(f"s{number}", minutes) for number in range(9) for minutes in range(6)]
    random.Random(1).shuffle(events)
    files = ([*events[:30], {"session_id": "s", "text": "no time"}, events[0]], events[30:])
    at_once = group(tmp_path / "a", *files, buckets=2)
    monkeypatch.setattr(sessions, "_PASS_BYTES", 1_000)
    in_passes = group(tmp_path / "b", *files, buckets=2)
    assert texts(in_passes) == texts(at_once)
    reasons = [[item.reject.reason for item in items if item.reject] for items in (in_passes, at_once)]
    assert sorted(reasons[0]) == sorted(reasons[1]) == [RejectReason.DUPLICATE_EVENT, RejectReason.MISSING_FIELD]


def test_what_a_session_has_over_the_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSION_LIMIT", 5_000)
    items = group(tmp_path, [*(event("long", minutes) for minutes in range(40)), event("short", 0)])
    found = texts(items)
    rejects = [item.reject for item in items if item.reject]
    assert found["short"] == ["short at 0"]
    assert 5 < len(found["long"]) == 40 - len(rejects)
    assert {reject.reason for reject in rejects} == {RejectReason.RECORD_TOO_LARGE}
    assert [reject.position for reject in rejects] == list(range(1 + len(found["long"]), 41))
    assert not [reject for reject in rejects if "long" in reject.message]  # the id may have to be hidden


def test_every_event_comes_out_once(tmp_path: Path) -> None:
    rng = random.Random(2)
    events = [event(f"s{rng.randrange(9)}", rng.randrange(400)) for _ in range(300)]
    items = group(tmp_path, events[:100], events[100:], chunk_bytes=1_000)
    places = [(origin.source, origin.position) for item in items for origin in item.origins]
    assert len(places) == len(set(places)) == 300
    assert (
        sum(len(item.dialogue.turns) for item in items if item.dialogue)
        + sum(item.reject is not None for item in items)
        == 300
    )


def test_what_the_first_event_does_not_say_of_the_session_a_later_one_may(tmp_path: Path) -> None:
    (item,) = group(tmp_path, [event("s", 0), event("s", 1, device="speaker", locale="en-GB", user_id="u")])
    assert item.dialogue is not None
    assert (item.dialogue.device, item.dialogue.locale, item.dialogue.user_id) == ("speaker", "en-GB", "u")
    assert item.dialogue.started_at == NOON


def test_buckets_grow_with_the_input() -> None:
    small, large = SourceFile(0, "a", 1_000, 0.0), SourceFile(1, "b", 1 << 30, 0.0)
    assert bucket_count([small]) == 1
    assert 100 < bucket_count([small, large]) < 200
