"""What holds of every input file, whatever its bytes: the path of a record, from the file to what a model sees.

Used by the fuzzer (`target.py`) and by the replay of what it found (`test_corpus.py`).
"""

from __future__ import annotations

import copy
import datetime as dt
import math
import shutil
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from encoders.checkpoints import SPECIAL_TOKENS, word_piece_tokenizer
from encoders.features import turn_features
from encoders.text import TurnTokenizer
from pipelines.chunks import Chunk, ChunkSize, SourceFile, cut, read_records
from pipelines.records import Item, read_items, stable_hash
from pipelines.sessions import Frame, partition, read_sessions, sessionise
from pipelines.staging import Staging
from schemas.formats import DialogueFormat, EventFormat, get_format
from schemas.log import ARROW_SCHEMA, Dialogue, decode, validate
from schemas.ontology import infer
from schemas.profile import LOGS_SCHEMA, log_profile
from schemas.rejects import REJECTED_SCHEMA, Reject, RejectReason, Stage

SMALL = ChunkSize(bytes=300, records=3)
GAP = dt.timedelta(minutes=30)
UNFORESEEN = "the reader of"
"""How the message of a reject begins where a reader raised what it does not document."""

_letters = [*string.ascii_letters, *string.digits, *string.punctuation]
_TOKENIZER = TurnTokenizer(
    word_piece_tokenizer(
        {token: index for index, token in enumerate([*SPECIAL_TOKENS, *_letters, *(f"##{each}" for each in _letters)])}
    )
)


def check(format_name: str, content: bytes, folder: Path) -> None:
    """Reads `content` as a file of that format; raises `AssertionError` where a promise is broken.

    `folder` is emptied first. The name of the file ends in `.json`, with which it may hold anything.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = folder / "log.json"
    file.write_bytes(content)
    source = SourceFile(0, str(file), len(content), 0.0)
    whole = _places(cut(source, Staging(str(folder / "whole")).spool(), ChunkSize()))
    staging = Staging(str(folder / "small"))
    chunks = list(cut(source, staging.spool(), SMALL))
    assert len({chunk.id for chunk in chunks}) == len(chunks), "two chunks have one id"
    small = _places(chunks)
    _check_cutting(content, whole, small)
    log_format = get_format(format_name)
    if isinstance(log_format, EventFormat):
        rejects: list[Reject] = []
        items = list(_sessions(chunks, log_format, staging))
    else:
        assert isinstance(log_format, DialogueFormat)
        rejects = [reject for chunk in chunks for reject in chunk.rejects]
        items = [item for chunk in chunks for item in read_items(chunk, log_format)]
    _check_account(small, rejects, items)
    _check_rejects([*rejects, *(item.reject for item in items if item.reject is not None)])
    _check_dialogues([item.dialogue for item in items if item.dialogue is not None])


def _places(chunks: Iterator[Chunk] | Sequence[Chunk]) -> dict[int, tuple[str, RejectReason | None]]:
    """Every record and reject of these chunks by its position: what it is, and why it cannot be read."""
    found: dict[int, tuple[str, RejectReason | None]] = {}
    for chunk in chunks:
        for reject in chunk.rejects:
            assert reject.position not in found, f"position {reject.position} comes twice"
            found[reject.position] = ("", reject.reason)
        for position, record, error in read_records(chunk):
            assert position not in found, f"position {position} comes twice"
            found[position] = ("" if error else repr(record), error.reason if error else None)
    return found


def _check_cutting(
    content: bytes,
    whole: dict[int, tuple[str, RejectReason | None]],
    small: dict[int, tuple[str, RejectReason | None]],
) -> None:
    # Of a damaged row group as much is read as the reader's steps allow.
    if content.startswith(b"PAR1") and {reason for _, reason in (*whole.values(), *small.values())} - {None}:
        return
    assert whole == small, "the size of the chunks changes the records"
    if not content.startswith((b"PAR1", b"\x1f\x8b")) and not content.lstrip(b"\xef\xbb\xbf \t\r\n\x0b\x0c").startswith(
        (b"[", b"{")
    ):
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        assert set(whole) == {number for number, line in enumerate(lines, start=1) if line.strip(b" \t\r\x0b\x0c")}


def _sessions(chunks: Sequence[Chunk], log_format: EventFormat, staging: Staging) -> Iterator[Item]:
    frames: dict[int, list[Frame]] = {}
    for chunk in chunks:
        for bucket, frame in partition(chunk, log_format, 2, staging):
            frames.setdefault(bucket, []).append(frame)
    for bucket, some in sorted(frames.items()):
        for chunk in sessionise(bucket, some, GAP, staging.spool(), SMALL):
            yield from read_sessions(chunk)


def _check_account(
    places: dict[int, tuple[str, RejectReason | None]], rejects: Sequence[Reject], items: Sequence[Item]
) -> None:
    accepted = {origin.position for item in items if item.dialogue is not None for origin in item.origins}
    rejected = [reject.position for reject in rejects]
    rejected += [origin.position for item in items if item.reject is not None for origin in item.origins]
    assert len(set(rejected)) == len(rejected), "a record is rejected twice"
    assert not accepted & set(rejected), "a record is accepted and rejected"
    assert accepted | set(rejected) == set(places), "a record is neither accepted nor rejected"


def _check_rejects(rejects: Sequence[Reject]) -> None:
    rows = [{name: getattr(reject, name) for name in REJECTED_SCHEMA.names} for reject in rejects]
    assert pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA).num_rows == len(rejects)
    for reject in rejects:
        assert reject.message, "a reject without a message"
        assert reject.reason in RejectReason
        assert reject.stage in Stage
        assert not reject.message.startswith(UNFORESEEN), reject.message


def _check_dialogues(dialogues: Sequence[Dialogue]) -> None:
    for dialogue in dialogues:
        assert validate(copy.deepcopy(dialogue)) == dialogue, "a dialogue that is not valid"
        text = msgspec.json.encode(dialogue)
        assert validate(decode(text, Dialogue)) == dialogue, "written and read again it is another"
        assert 0 <= stable_hash(dialogue.dialogue_id) < 2**64
        features = turn_features(dialogue)
        assert not np.isinf(features.numbers).any(), "a feature that is not finite"
        assert (features.categories >= 0).all()
    for turns in _TOKENIZER.dialogues(dialogues):
        assert all(len(turn.ids) == len(turn.segments) >= 2 for turn in turns)
    rows = msgspec.to_builtins(dialogues, builtin_types=(dt.datetime,))
    table = pa.Table.from_pylist(rows, schema=ARROW_SCHEMA)
    table.validate(full=True)
    profiles = pa.Table.from_pylist([log_profile(dialogue) for dialogue in dialogues], schema=LOGS_SCHEMA)
    profiles.validate(full=True)
    assert all(math.isfinite(share) for share in profiles["asr_share"].to_pylist())
    msgspec.json.encode(infer(dialogues, annotations=True))
