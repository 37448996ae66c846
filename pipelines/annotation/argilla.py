"""Argilla: the folder that `rg.Dataset.from_disk` loads, and back from its records as a list.

The forms are those of Argilla 2.x (https://docs.argilla.io): settings, data set and records as `Dataset.to_disk`
writes them; back comes `json.dump(dataset.records.to_list(flatten=True), file)`. (`to_disk` and `to_json` do not say
which answers were submitted and which discarded.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pipelines.annotation.tasks import (
    GUIDELINES,
    MEANINGS,
    NO,
    NOTHING_HEARD,
    TITLES,
    YES,
    Answer,
    AnswerError,
    Form,
    LeftOut,
    Question,
    Reason,
    Strategy,
    Task,
    answered,
)
from pipelines.errors import UserError

SETTINGS = ".argilla/settings.json"
DATASET = ".argilla/dataset.json"
RECORDS = "records.json"
NAME = "faultline"
"""Of the data set, unless `from_disk` is given another."""
_FEWEST_OPTIONS = 2
"""Fewer choices are no question: the server refuses them."""
_TEXT = "text"


# There


def write(tasks: Sequence[Task], form: Form, folder: Path) -> list[Path]:
    """Writes settings, data set and records into the folder; gives the files."""
    contents: dict[str, Any] = {
        SETTINGS: settings(form),
        DATASET: {"name": NAME, "guidelines": GUIDELINES, "allow_extra_metadata": False},
        RECORDS: [_record(task, form) for task in tasks],
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    return [folder / name for name in contents]


def settings(form: Form) -> dict[str, Any]:
    """Fields, questions and metadata of the data set."""
    points = {str(point): str(point) for point in MEANINGS}
    meanings = " ".join(f"{point}: {meaning}." for point, meaning in MEANINGS.items())
    questions = [
        _question(Question.FAILURE_POINT, _choices(points), required=True, description=meanings),
        _question(Question.SUCCESS, _choices({YES: YES, NO: NO})),
    ]
    if _asks_intents(form):
        questions.append(_question(Question.INTENT, _choices({name: name for name in form.intents})))
    questions.append(_question(Question.OTHER_INTENT, {"type": "text"}))
    if form.slots:
        options = _choices({name: name for name in form.slots})["options"]
        spans = {"type": "span", "field": _TEXT, "allow_overlapping": True, "options": options}
        questions.append(_question(Question.SLOTS, spans))
    questions.append(_question(Question.OTHER_SLOTS, {"type": "text"}))
    if form.spoken:
        questions.append(_question(Question.TRANSCRIPT, {"type": "text"}))
    return {
        "guidelines": GUIDELINES,
        "fields": [
            _field("why", "Why this turn"),
            _field("dialogue", "The dialogue", "chat"),
            _field("system", "What the assistant made of the turn"),
            _field(_TEXT, "The turn's text"),
        ],
        "questions": questions,
        "metadata": [
            _metadata("dataset", "Data set of the labels"),
            _metadata("dialogue_id", "Dialogue"),
            _metadata("turn_index", "Turn", "integer"),
            _metadata("strategy", "Chosen because", values=list(Strategy)),
            _metadata("spoken", "Spoken", values=[YES, NO]),
        ],
        "vectors": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }


def _asks_intents(form: Form) -> bool:
    return len(form.intents) >= _FEWEST_OPTIONS


def _field(name: str, title: str, kind: str = "text") -> dict[str, Any]:
    return {"name": name, "title": title, "required": True, "settings": {"type": kind, "use_markdown": False}}


def _question(
    question: Question, answer: dict[str, Any], *, required: bool = False, description: str | None = None
) -> dict[str, Any]:
    return {
        "name": question,
        "title": TITLES[question],
        "description": description,
        "required": required,
        "settings": answer,
    }


def _choices(options: dict[str, str]) -> dict[str, Any]:
    return {"type": "label_selection", "options": [{"value": value, "text": text} for value, text in options.items()]}


def _metadata(name: str, title: str, kind: str = "terms", **more: object) -> dict[str, Any]:
    return {"name": name, "title": title, "settings": {"type": kind, "visible_for_annotators": True, **more}}


def _record(task: Task, form: Form) -> dict[str, Any]:
    return {
        "id": f"{task.dataset}/{task.dialogue_id}/{task.turn_index}",
        "fields": {
            "why": task.why,
            "dialogue": [
                {"role": line.speaker, "content": f"▶ {line.text}" if line.asked else line.text} for line in task.lines
            ],
            "system": "\n".join(task.system),
            _TEXT: task.text,
        },
        "metadata": {
            "dataset": task.dataset,
            "dialogue_id": task.dialogue_id,
            "turn_index": task.turn_index,
            "strategy": task.strategy,
            "spoken": YES if task.spoken else NO,
        },
        "suggestions": {
            question: {"value": value, "score": score, "agent": task.model_version, "type": "model"}
            for question, value, score in _suggestions(task, form)
        },
        "responses": {},
        "vectors": {},
    }


def _suggestions(task: Task, form: Form) -> Iterator[tuple[Question, Any, float | list[float] | None]]:
    suggested = task.suggested
    yield Question.FAILURE_POINT, suggested.failure_point, suggested.failure_point_confidence
    yield Question.SUCCESS, YES if suggested.success else NO, suggested.success_confidence
    if suggested.intent is not None:
        question = Question.INTENT if _asks_intents(form) else Question.OTHER_INTENT
        yield question, suggested.intent, suggested.intent_confidence
    marked = [slot for slot in suggested.slots if slot.start is not None]
    if marked:
        spans = [{"label": slot.name, "start": slot.start, "end": slot.end} for slot in marked]
        yield Question.SLOTS, spans, [slot.confidence for slot in marked]
    others = [f"{slot.name} = {slot.value}" for slot in suggested.slots if slot.start is None]
    if others:
        yield Question.OTHER_SLOTS, "\n".join(others), None
    if task.spoken and task.text != NOTHING_HEARD:
        yield Question.TRANSCRIPT, task.text, None


# And back


class _Span(Struct):
    label: str
    start: int
    end: int


class _Record(Struct):
    """What every record of `to_list(flatten=True)` has; the answers stand beside it."""

    dataset: str
    dialogue_id: str
    turn_index: int
    text: str
    spoken: str


_SUBMITTED, _DISCARDED = "submitted", "discarded"


def read(path: Path) -> Iterator[Answer | LeftOut]:
    """The responses in a list of records, in its order: every person's as an answer, or as left out.

    Raises `UserError` where the file cannot be read, or is no such list.
    """
    form = "write it with json.dump(dataset.records.to_list(flatten=True), file)"
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except OSError as error:
        raise UserError(f"Cannot read --input {path}: {error.strerror or error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--input {path} is no list of Argilla's records ({error}): {form}.") from None
    if any("responses" in record for record in records):
        raise UserError(f"--input {path} does not say which responses were submitted: {form}.")
    for number, record in enumerate(records, start=1):
        try:
            yield from _answers(record)
        except (AnswerError, msgspec.ValidationError) as error:
            yield LeftOut(Reason.MALFORMED, f"Record {number} is none that faultline export wrote: {error}.")


def _answers(record: dict[str, Any]) -> Iterator[Answer | LeftOut]:
    known = msgspec.convert(record, _Record)
    named = f"Turn {known.turn_index} of dialogue {known.dialogue_id}"
    people: dict[str, dict[Question, tuple[str, Any]]] = {}
    for question in Question:
        for person, status, value in _responses(record, question):
            people.setdefault(person, {})[question] = (status, value)
    if not people:
        yield LeftOut(Reason.UNANSWERED, f"{named} has no response.")
    for given in people.values():
        statuses = {status for status, _ in given.values()}
        if _SUBMITTED not in statuses:
            skipped = _DISCARDED in statuses
            reason = Reason.SKIPPED if skipped else Reason.UNANSWERED
            yield LeftOut(reason, f"{named} was {'discarded' if skipped else 'not submitted'}.")
            continue
        try:
            yield _answer(known, {question: value for question, (_, value) in given.items()})
        except (AnswerError, msgspec.ValidationError) as error:
            yield LeftOut(Reason.MALFORMED, f"{named} has a response that cannot be understood: {error}.")


def _responses(record: dict[str, Any], question: Question) -> Iterator[tuple[str, str, Any]]:
    """Person, status and value; none where nobody answered the question."""
    values, people, statuses = (
        msgspec.convert(record.get(f"{question}.{name}") or [], list[Any])
        for name in ("responses", "responses.users", "responses.status")
    )
    if not len(values) == len(people) == len(statuses):
        raise AnswerError(f"{question} has {len(values)} values, {len(people)} users and {len(statuses)} statuses")
    yield from zip(map(str, people), map(str, statuses), values, strict=True)


def _answer(record: _Record, given: dict[Question, Any]) -> Answer:
    def text(question: Question) -> str | None:
        return msgspec.convert(given.get(question), str | None)

    spans = msgspec.convert(given.get(Question.SLOTS) or [], list[_Span])
    return answered(
        (record.dataset, record.dialogue_id, record.turn_index, record.text),
        spoken=record.spoken == YES,
        failure_point=text(Question.FAILURE_POINT),
        success=text(Question.SUCCESS),
        intent=text(Question.INTENT),
        other_intent=text(Question.OTHER_INTENT),
        spans=[(span.label, span.start, span.end) for span in spans],
        other_slots=text(Question.OTHER_SLOTS) or "",
        transcript=text(Question.TRANSCRIPT),
    )
