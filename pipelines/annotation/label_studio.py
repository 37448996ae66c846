"""Label Studio: `config.xml` (the labelling interface) and `tasks.json`, and back from its JSON export.

The forms are those of Label Studio 1.x: labelling configuration (https://labelstud.io/tags), tasks with predictions
(https://labelstud.io/guide/predictions), and the export format named JSON (https://labelstud.io/guide/export).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
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
    Task,
    answered,
)
from pipelines.errors import UserError

CONFIG = "config.xml"
TASKS = "tasks.json"
_TEXT = "text"
"""The object that every question is about."""
_CHOICES, _LABELS, _TEXT_AREA, _TEXT_TAG = "Choices", "Labels", "TextArea", "Text"


# There


def write(tasks: Sequence[Task], form: Form, folder: Path) -> list[Path]:
    """Writes the interface and the tasks into the folder; gives the files."""
    files = [folder / CONFIG, folder / TASKS]
    files[0].write_text(config(form), encoding="utf-8")
    encoded = msgspec.json.encode([_task(task) for task in tasks])
    files[1].write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
    return files


def config(form: Form) -> str:
    """The labelling interface, as XML."""
    root = ET.Element("View")
    _add(root, "Header", value="How to judge", size="4")
    _add(root, _TEXT_TAG, name="guidelines", value="$guidelines")
    _add(root, "Header", value="Why this turn", size="4")
    _add(root, _TEXT_TAG, name="why", value="$why")
    _add(root, "Header", value="The dialogue", size="4")
    _add(root, "Paragraphs", name="dialogue", value="$dialogue", nameKey="speaker", textKey="text", layout="dialogue")
    _add(root, "Header", value="What the assistant made of the turn", size="4")
    _add(root, _TEXT_TAG, name="system", value="$system")
    if form.slots:
        _title(root, Question.SLOTS)
        labels = _control(root, _LABELS, Question.SLOTS)
        for name in form.slots:
            _add(labels, "Label", value=name)
    else:
        _add(root, "Header", value="The turn's text", size="4")
    _add(root, _TEXT_TAG, name=_TEXT, value="$text")
    _title(root, Question.OTHER_SLOTS)
    _control(root, _TEXT_AREA, Question.OTHER_SLOTS, rows="2", editable="true")
    _title(root, Question.FAILURE_POINT)
    points = _control(root, _CHOICES, Question.FAILURE_POINT, choice="single", required="true")
    for point, meaning in MEANINGS.items():
        _add(points, "Choice", value=point, hint=meaning)
    if form.intents:
        _title(root, Question.INTENT)
        intents = _control(root, _CHOICES, Question.INTENT, choice="single", layout="select")
        for name in form.intents:
            _add(intents, "Choice", value=name)
    _title(root, Question.OTHER_INTENT)
    _control(root, _TEXT_AREA, Question.OTHER_INTENT, rows="1", maxSubmissions="1", editable="true")
    if form.spoken:
        _title(root, Question.TRANSCRIPT)
        _control(root, _TEXT_AREA, Question.TRANSCRIPT, rows="1", maxSubmissions="1", editable="true")
    _title(root, Question.SUCCESS)
    success = _control(root, _CHOICES, Question.SUCCESS, choice="single", showInline="true")
    for answer in (YES, NO):
        _add(success, "Choice", value=answer)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, attributes)


def _title(parent: ET.Element, question: Question) -> None:
    _add(parent, "Header", value=TITLES[question], size="4")


def _control(parent: ET.Element, tag: str, question: Question, **attributes: str) -> ET.Element:
    return _add(parent, tag, name=question, toName=_TEXT, **attributes)


def _task(task: Task) -> dict[str, Any]:
    return {
        "data": {
            "dataset": task.dataset,
            "dialogue_id": task.dialogue_id,
            "turn_index": task.turn_index,
            "spoken": task.spoken,
            "text": task.text,
            "dialogue": [
                {"speaker": f"▶ {line.speaker}" if line.asked else line.speaker, "text": line.text}
                for line in task.lines
            ],
            "system": "\n".join(task.system),
            "strategy": task.strategy,
            "why": task.why,
            "guidelines": GUIDELINES,
        },
        "predictions": [
            {
                "model_version": task.model_version,
                "score": round(task.suggested.failure_point_confidence, 4),
                "result": list(_prediction(task)),
            }
        ],
    }


def _prediction(task: Task) -> Iterator[dict[str, Any]]:
    suggested = task.suggested
    yield _region(Question.FAILURE_POINT, _CHOICES, {"choices": [suggested.failure_point]})
    yield _region(Question.SUCCESS, _CHOICES, {"choices": [YES if suggested.success else NO]})
    if suggested.intent is not None:
        yield _region(Question.INTENT, _CHOICES, {"choices": [suggested.intent]})
    others = []
    for number, slot in enumerate(suggested.slots):
        if slot.start is None or slot.end is None:
            others.append(f"{slot.name} = {slot.value}")
        else:
            span = {"start": slot.start, "end": slot.end, "text": task.text[slot.start : slot.end]}
            yield _region(Question.SLOTS, _LABELS, {**span, "labels": [slot.name]}, number)
    if others:
        yield _region(Question.OTHER_SLOTS, _TEXT_AREA, {"text": others})
    if task.spoken and task.text != NOTHING_HEARD:
        yield _region(Question.TRANSCRIPT, _TEXT_AREA, {"text": [task.text]})


def _region(question: Question, tag: str, value: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return {
        "id": f"{question}-{number}",
        "from_name": question,
        "to_name": _TEXT,
        "type": tag.lower(),
        "value": value,
    }


# And back


class _Data(Struct):
    dataset: str
    dialogue_id: str
    turn_index: int
    text: str
    spoken: bool


class _Value(Struct):
    choices: list[str] = []
    labels: list[str] = []
    text: str | list[str] = []
    start: int | None = None
    end: int | None = None


class _Region(Struct):
    from_name: str = ""
    """empty: a relation between regions, which nobody asked for"""
    value: _Value | None = None


class _Annotation(Struct):
    result: list[_Region]
    was_cancelled: bool = False


class _Entry(Struct):
    """A task of the JSON export."""

    data: _Data
    annotations: list[msgspec.Raw]


def read(path: Path) -> Iterator[Answer | LeftOut]:
    """The annotations in a JSON export, in its order: every one as an answer, or as left out.

    Raises `UserError` where the file cannot be read, or is no such export.
    """
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])
    except OSError as error:
        raise UserError(f"Cannot read --input {path}: {error.strerror or error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"--input {path} is no JSON export of Label Studio ({error}): export the project in the format JSON."
        ) from None
    for number, entry in enumerate(entries, start=1):
        try:
            task = msgspec.json.decode(entry, type=_Entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            yield LeftOut(Reason.MALFORMED, f"Task {number} is none that faultline export wrote: {error}.")
            continue
        if not task.annotations:
            yield LeftOut(Reason.UNANSWERED, f"{_named(task.data)} has no annotation.")
        for annotation in task.annotations:
            yield _answer(task.data, annotation)


def _named(data: _Data) -> str:
    return f"Turn {data.turn_index} of dialogue {data.dialogue_id}"


def _answer(data: _Data, raw: msgspec.Raw) -> Answer | LeftOut:
    try:
        annotation = msgspec.json.decode(raw, type=_Annotation)
        if annotation.was_cancelled:
            return LeftOut(Reason.SKIPPED, f"{_named(data)} was skipped.")
        if not annotation.result:
            return LeftOut(Reason.UNANSWERED, f"{_named(data)} has an annotation without answers.")
        values: dict[str, list[_Value]] = {}
        for region in annotation.result:
            if region.value is not None:
                values.setdefault(region.from_name, []).append(region.value)
        return answered(
            (data.dataset, data.dialogue_id, data.turn_index, data.text),
            spoken=data.spoken,
            failure_point=_choice(values, Question.FAILURE_POINT),
            success=_choice(values, Question.SUCCESS),
            intent=_choice(values, Question.INTENT),
            other_intent=_written(values, Question.OTHER_INTENT),
            spans=[span for value in values.get(Question.SLOTS, []) for span in _spans(data, value)],
            other_slots=_written(values, Question.OTHER_SLOTS) or "",
            transcript=_written(values, Question.TRANSCRIPT),
        )
    except (AnswerError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return LeftOut(Reason.MALFORMED, f"{_named(data)} has an annotation that cannot be understood: {error}.")


def _choice(values: dict[str, list[_Value]], question: Question) -> str | None:
    chosen = [choice for value in values.get(question, []) for choice in value.choices]
    if len(chosen) > 1:
        raise AnswerError(f"{question} has {len(chosen)} answers: {', '.join(chosen)}")
    return chosen[0] if chosen else None


def _written(values: dict[str, list[_Value]], question: Question) -> str | None:
    texts = [text for value in values.get(question, []) for text in _texts(value)]
    return "\n".join(texts) if texts else None


def _texts(value: _Value) -> list[str]:
    return [value.text] if isinstance(value.text, str) else value.text


def _spans(data: _Data, value: _Value) -> Iterator[tuple[str, int, int]]:
    if value.start is None or value.end is None:
        raise AnswerError("a slot is marked without its start and end")
    marked = "".join(_texts(value))
    if marked and data.text[value.start : value.end] != marked:
        raise AnswerError(f"the span {value.start}..{value.end} is not {marked!r} in the text")
    for name in value.labels:
        yield name, value.start, value.end
