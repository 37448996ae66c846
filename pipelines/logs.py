"""Logs read by the launcher itself: whole, for the jobs that learn from them or score against them, or a sample.

`faultline label` never reads them whole: it goes chunk by chunk.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from pipelines import storage
from pipelines.chunks import Chunk, ChunkSize, SourceFile, Spool, cut
from pipelines.errors import RunFailed, UserError
from pipelines.plan import find_sources
from pipelines.records import originals, parse, read_items
from schemas.formats import DialogueFormat, EventFormat, LogFormat, UnknownFormatError, get_format
from schemas.log import Dialogue, DialogueAnnotation, FailurePoint, TurnAnnotation
from schemas.ontology import Ontology, infer
from schemas.rejects import RecordError, RejectReason

SAMPLE = 2_000
"""Records that an assistant's ontology is inferred from."""


class Logs(NamedTuple):
    """What was read."""

    dialogues: list[Dialogue]
    rejected: Counter[RejectReason]


_ANNOTATIONS = ("intent", "slots", "goal_id", "failure_point", "rephrase_of")
"""What is annotated of a turn and is a label, too."""


class Part(StrEnum):
    """The parts that annotated logs are divided into, by dialogue, before anything is trained."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def part_of(dialogue: Dialogue) -> Part:
    """Seven dialogues in ten train, one validates, two test: by a hash of the dialogue's id.

    A dialogue of one turn is divided by what was said, so that one sentence spoken by several people is never on
    both sides.
    """
    key = dialogue.dialogue_id
    if len(dialogue.turns) == 1:
        turn = dialogue.turns[0]
        key = (turn.annotation.transcript if turn.annotation else None) or turn.text or key
    bucket = int(hashlib.sha256(key.encode(errors="replace")).hexdigest(), 16) % 10
    return Part.TEST if bucket < 2 else Part.VALIDATION if bucket == 2 else Part.TRAIN


def read_logs(patterns: Sequence[str], format_name: str) -> Logs:
    """Every dialogue of the files, in order; bad records are counted by reason.

    Raises `UserError` for a pattern without files, an unknown format, or a format of single turn events, and
    `RunFailed` where the files cannot be read on.
    """
    log_format = dialogue_format(format_name)
    dialogues: list[Dialogue] = []
    rejected: Counter[RejectReason] = Counter()
    with _chunks(find_sources(patterns)) as chunks:
        for chunk in chunks:
            rejected.update(reject.reason for reject in chunk.rejects)
            for item in read_items(chunk, log_format):
                if item.reject is not None:
                    rejected[item.reject.reason] += 1
                elif item.dialogue is not None:
                    dialogues.append(item.dialogue)
    return Logs(dialogues, rejected)


def dialogue_format(name: str) -> DialogueFormat:
    """The format of this name. Raises `UserError` where there is none, or it is one of single turn events."""
    try:
        log_format = get_format(name)
    except UnknownFormatError as error:
        raise UserError(str(error)) from None
    if not isinstance(log_format, DialogueFormat):
        raise UserError(
            f"{name} holds single turns: put them into dialogues first, as the canonical jsonl has them "
            "(faultline schema prints its form)."
        )
    return log_format


def logged_ontology(sources: Sequence[SourceFile], log_format: LogFormat) -> Ontology | None:
    """What the assistant's own understanding speaks of in the first `SAMPLE` records; None if it has none."""
    ontology = infer(_sampled(sources, log_format))
    return ontology if ontology.intents else None


def _sampled(sources: Sequence[SourceFile], log_format: LogFormat) -> Iterator[Dialogue]:
    """The dialogues of the first `SAMPLE` records, one held at a time; a single turn is a dialogue of its own."""
    with _chunks(sources) as chunks:
        records = (record for chunk in chunks for record in originals(chunk))
        for _, record, error in itertools.islice(records, SAMPLE):
            if error is not None:
                continue
            with contextlib.suppress(RecordError):
                if isinstance(log_format, DialogueFormat):
                    yield from parse(log_format, log_format.parse, record)
                elif isinstance(log_format, EventFormat):
                    event = parse(log_format, log_format.parse_event, record)
                    yield Dialogue(dialogue_id=event.session_id, turns=[event])


@contextlib.contextmanager
def _chunks(sources: Sequence[SourceFile]) -> Iterator[Iterator[Chunk]]:
    """The chunks of the files, cut as they are asked for; what they spool is gone afterwards.

    Raises `RunFailed` where the files cannot be read on.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            spool = Spool(storage.join(folder, "spool"), storage.join(folder, "temporary"), lambda _: False)
            for path in (spool.folder, spool.temporary):
                Path(path).mkdir()
            yield (chunk for source in sources for chunk in cut(source, spool, ChunkSize()))
    except OSError as error:
        raise RunFailed(f"Cannot read the logs now ({error}): try again.") from error


class _Annotations(Struct):
    """One line of an annotations file."""

    failure_points: list[FailurePoint]
    dialogue_id: str | None = None
    session: Annotated[str | None, Meta(description="another name for dialogue_id")] = None


def annotate(dialogues: Iterable[Dialogue], path: str) -> int:
    """Puts the failure points of a JSON Lines file into the dialogues; returns how many dialogues got theirs.

    A line is `{"dialogue_id" (or "session"): …, "failure_points": [one a turn]}`. Raises `UserError` for a file
    that cannot be read, is not of this form, or has another number of turns than the log, and `RunFailed` where its
    store does not answer.
    """
    found: Mapping[str, list[FailurePoint]] = dict(_read_annotations(path))
    count = 0
    for dialogue in dialogues:
        points = found.get(dialogue.dialogue_id)
        if points is None:
            continue
        if len(points) != len(dialogue.turns):
            raise UserError(
                f"{path} has {len(points)} failure points for dialogue {dialogue.dialogue_id}, which has "
                f"{len(dialogue.turns)} turns: give one a turn."
            )
        for turn, point in zip(dialogue.turns, points, strict=True):
            turn.annotation = turn.annotation or TurnAnnotation()
            turn.annotation.failure_point = point
        count += 1
    return count


def take_surveys(dialogues: Iterable[Dialogue]) -> None:
    """Makes what the user said of a dialogue's success its annotation, where it has none."""
    for dialogue in dialogues:
        if dialogue.feedback is None or dialogue.feedback.success is None:
            continue
        dialogue.annotation = dialogue.annotation or DialogueAnnotation()
        if dialogue.annotation.success is None:
            dialogue.annotation.success = dialogue.feedback.success


def is_annotated(dialogue: Dialogue) -> bool:
    """Whether people said of it what a label is. Their ratings are not: no label is learned from those."""
    whole = dialogue.annotation
    return (whole is not None and (whole.success is not None or bool(whole.goals))) or any(
        turn.annotation is not None and any(getattr(turn.annotation, name) is not None for name in _ANNOTATIONS)
        for turn in dialogue.turns
    )


def _read_annotations(path: str) -> Iterable[tuple[str, list[FailurePoint]]]:
    try:
        content = storage.read_bytes(storage.absolute(path))
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except storage.StoreError as error:
        raise RunFailed(f"Cannot read the annotations {path} now ({error}): try again.") from error
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read the annotations {path}: {error}.") from None
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = msgspec.json.decode(line, type=_Annotations)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}, line {number} is no annotation: {error}.") from None
        name = entry.dialogue_id or entry.session
        if name is None:
            raise UserError(f"{path}, line {number} names no dialogue_id.")
        yield name, entry.failure_points
